"""The environment, checked."""

import re

import pytest
from support.service import KEY, Service

from signer.errors import ConfigurationError
from signer.settings import Settings

#: What is read under its own name in capitals.
SET = [name for name in Settings.__struct_fields__ if name != "keys"]
OTHER = "another-key-of-more-than-thirty-two-bytes"


def test_nothing_set_is_the_development_service() -> None:
    """On loopback, with a list in the working directory, and tokens that live an hour."""
    settings = Settings.from_env({})
    assert settings.is_development
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.database_url == "sqlite:///./tokens.db"
    assert (settings.token_ttl_minutes, settings.token_leeway_seconds) == (60, 10)
    assert not settings.anonymous_scopes


def test_every_setting_is_read() -> None:
    """Under its fixed name."""
    settings = Settings.from_env(
        {
            "SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": f"{OTHER}, {OTHER}2", "DATABASE_URL": "memory://",
            "TOKEN_TTL_MINUTES": "5", "TOKEN_MAX_TTL_MINUTES": "10", "TOKEN_LEEWAY_SECONDS": "0", "TOKEN_GRACE_SECONDS": "60", "REVOCATION_STALENESS_SECONDS": "5", "HOST": "0.0.0.0",
            "PORT": "80", "WEB_CONCURRENCY": "1", "ANONYMOUS_SCOPES": "token:issue read", "LOG_LEVEL": "DEBUG", "AUTH_COOKIE": "__Host-session", "ISSUER": "https://a.example.org:8443/tokens", "APP_TITLE": "Tokens",
            "APP_DESCRIPTION": "Ours.\nAll of them.", "LOG_FORMAT": "json", "AUDIT_LOG": "/var/log/signer/audit.log",
            "AUDIT_VALIDATIONS": "TRUE", "METRICS": "False", "RATE_LIMIT": "10/second;1000 per 2 hours", "RATE_LIMIT_STORAGE": "redis://127.0.0.1/0", "TRUSTED_PROXIES": "10.0.0.7, fd00::/8",
            "CORS_ORIGINS": "https://app.example.org, http://[::1]:3000",
        }
    )  # fmt: skip
    assert set(Settings.__struct_fields__) == set(SET) | {"keys"}
    unset = Settings()
    assert not [
        name for name in SET if name != "web_concurrency" and getattr(settings, name) == getattr(unset, name)
    ]
    assert (settings.audit_log, settings.audit_validations) == ("/var/log/signer/audit.log", True)
    assert (settings.log_format, settings.rate_limit) == ("json", "10/second;1000 per 2 hours")
    assert settings.trusted_proxies == ("10.0.0.7", "fd00::/8")
    assert settings.cors_origins == ("https://app.example.org", "http://[::1]:3000")
    assert settings.keys is not None
    assert len(settings.keys.by_id) == 3
    assert (settings.token_ttl_minutes, settings.token_max_ttl_minutes, settings.token_leeway_seconds) == (
        5,
        10,
        0,
    )
    assert (settings.host, settings.port, settings.log_level) == ("0.0.0.0", 80, "debug")
    assert settings.anonymous_scopes == {"token:issue", "read"}
    assert (settings.auth_cookie, settings.issuer) == ("__Host-session", "https://a.example.org:8443/tokens")
    assert (settings.app_title, settings.app_description) == ("Tokens", "Ours.\nAll of them.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("SECRET_KEY", "x" * 31),
        ("SECRET_KEY", f"{KEY},x"),
        ("SECRET_KEY", f"{KEY}\n"),
        ("SECRET_KEY_FALLBACKS", KEY),
        ("SECRET_KEY_FALLBACKS", f"{OTHER},{OTHER}"),
        ("SECRET_KEY_FALLBACKS", f"{OTHER},"),
        ("SECRET_KEY_FALLBACKS", "short"),
        ("SECRET_KEY_FALLBACKS", f"{OTHER}\udcff"),
        ("TOKEN_TTL_MINUTES", "0"),
        ("TOKEN_TTL_MINUTES", "1.5"),
        ("TOKEN_TTL_MINUTES", "NaN"),
        ("TOKEN_TTL_MINUTES", "1e3"),
        ("TOKEN_TTL_MINUTES", "٣"),
        ("TOKEN_TTL_MINUTES", "129601"),
        ("TOKEN_TTL_MINUTES", "9" * 5000),
        ("TOKEN_TTL_MINUTES", ""),
        ("TOKEN_MAX_TTL_MINUTES", "-1"),
        ("TOKEN_LEEWAY_SECONDS", "301"),
        ("HOST", ""),
        ("HOST", "a b"),
        ("HOST", ".."),
        ("HOST", "a" * 64),
        ("HOST", "\udcff"),
        ("PORT", "65536"),
        ("WEB_CONCURRENCY", "0"),
        ("ANONYMOUS_SCOPES", "token:isue"),
        ("AUTH_COOKIE", ""),
        ("AUTH_COOKIE", "a b"),
        ("AUTH_COOKIE", "a;b"),
        ("ISSUER", ""),
        ("ISSUER", "tokens.example.org"),
        ("ISSUER", "https://tokens.example.org/"),
        ("ISSUER", "https://tokens.example.org?x"),
        ("ISSUER", "https://tokens.example.org\n"),
        ("APP_TITLE", ""),
        ("APP_TITLE", "a\nb"),
        ("APP_DESCRIPTION", "\x00"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("AUDIT_LOG", ""),
        ("AUDIT_LOG", "a\nb"),
        ("AUDIT_VALIDATIONS", "yes"),
        ("RATE_LIMIT", ""),
        ("RATE_LIMIT", "100"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT", "-1/minute"),
        ("RATE_LIMIT", "100/fortnight"),
        ("RATE_LIMIT", "100/minute;"),
        ("RATE_LIMIT_STORAGE", "memcached://127.0.0.1"),
        ("RATE_LIMIT_STORAGE", "redis://"),
        ("RATE_LIMIT_STORAGE", "redis://a b"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "proxy.example.org"),
        ("TRUSTED_PROXIES", "10.0.0.7/8"),
        ("TRUSTED_PROXIES", "10.0.0.7,"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "null"),
        ("CORS_ORIGINS", "app.example.org"),
        ("CORS_ORIGINS", "https://app.example.org/"),
        ("CORS_ORIGINS", "https://App.example.org"),
        ("CORS_ORIGINS", "https://*.example.org"),
    ],
)
def test_a_malformed_value_names_its_setting(name: str, value: str) -> None:
    """And never repeats a key; what would be right is told, with an example where there is one."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        Settings.from_env({"SECRET_KEY": KEY, name: value})
    assert KEY not in str(caught.value)
    assert OTHER not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert re.search("must be|such as|Make one with|is none of|takes|at least|holds", str(caught.value))


def test_words_for_the_trail_are_no_files() -> None:
    """However they are written."""
    for text in ("STDOUT", "stdout ", "Off"):
        assert Settings.from_env({"AUDIT_LOG": text}).audit_log == text.strip().lower()


def test_a_short_cap_shortens_the_usual_life() -> None:
    """Without a word, since the life was not asked for."""
    assert Settings.from_env({"TOKEN_MAX_TTL_MINUTES": "30"}).token_ttl_minutes == 30


def test_fallbacks_without_a_key_are_refused() -> None:
    """A rotation half done must not open the development service."""
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        Settings.from_env({"SECRET_KEY_FALLBACKS": OTHER})


def test_a_list_in_memory_is_for_one_process() -> None:
    """Two workers would each revoke for themselves."""
    with pytest.raises(ConfigurationError, match="WEB_CONCURRENCY"):
        Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "memory://", "WEB_CONCURRENCY": "2"})


def test_no_repr_shows_a_value() -> None:
    """Settings end up in tracebacks and debuggers."""
    settings = Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "sqlite:///private.db"})
    assert KEY not in repr(settings)
    assert "private" not in repr(settings)


@pytest.mark.parametrize(
    "command", [None, ("-m", "uvicorn", "app:app", "--app-dir", ".", "--port", "{port}")]
)
def test_a_service_with_a_wrong_setting_says_one_line_and_ends(
    tmp_path_factory: pytest.TempPathFactory, command: tuple[str, ...] | None
) -> None:
    """Under either way to start it."""
    directory = tmp_path_factory.mktemp("wrong")
    service = Service(directory, {"SECRET_KEY": KEY, "LOG_LEVEL": "loud"})
    if command:
        (directory / "app.py").symlink_to(service.command[0])
        service.command = command
    with pytest.raises(AssertionError, match="did not start"):
        service.__enter__()
    assert service.log == "signer: LOG_LEVEL must be one of debug, info, warning, error, critical.\n"
    assert service.process.returncode == 2


@pytest.mark.parametrize(
    ("url", "storage", "counting"),
    [
        ("sqlite:///./tokens.db", "", ""),
        ("redis://:secret@host:7/3?replicas=1", "", "redis://:secret@host:7/3"),
        ("rediss://host", "redis://other", "redis://other"),
        ("redis+sentinel://host/service", "", ""),
    ],
)
def test_calls_are_counted_where_the_list_is(url: str, storage: str, counting: str) -> None:
    """If it can count, and unless it is said where."""
    assert Settings(database_url=url, rate_limit_storage=storage).counting_url == counting
