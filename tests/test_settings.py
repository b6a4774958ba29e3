"""Settings: their names, their rules, and the files that hold secrets."""

import os
import re
from functools import partial
from pathlib import Path

import pytest
from support.service import KEY, Service

from signer import Signer
from signer.errors import ConfigurationError
from signer.policy import MAX_SETTING_FILE
from signer.settings import Settings, taken_from, variables_in

#: Settings that are read from a variable of the same name in capitals.
SET = [name for name in Settings.__struct_fields__ if name != "keys"]
OTHER = "another-key-of-more-than-thirty-two-bytes"


def test_nothing_set_is_the_development_service() -> None:
    """It listens on loopback, with a list in the working directory, and its tokens live for an hour."""
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
    """The message never repeats a key. It says what would be right, with an example where there is one."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        Settings.from_env({"SECRET_KEY": KEY, name: value})
    assert KEY not in str(caught.value)
    assert OTHER not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert re.search("must be|such as|Make one with|is none of|takes|at least|holds", str(caught.value))


def test_words_for_the_trail_are_no_files() -> None:
    """In capitals, or with a space after them, too."""
    for text in ("STDOUT", "stdout ", "Off"):
        assert Settings.from_env({"AUDIT_LOG": text}).audit_log == text.strip().lower()


def test_a_short_cap_shortens_the_usual_life() -> None:
    """Silently, because nobody asked for the usual life."""
    assert Settings.from_env({"TOKEN_MAX_TTL_MINUTES": "30"}).token_ttl_minutes == 30


def test_fallbacks_without_a_key_are_refused() -> None:
    """A key change that was half done must not start the development service."""
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        Settings.from_env({"SECRET_KEY_FALLBACKS": OTHER})


def test_a_list_in_memory_is_for_one_process() -> None:
    """Two workers would not know of each other's revocations."""
    with pytest.raises(ConfigurationError, match="WEB_CONCURRENCY"):
        Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "memory://", "WEB_CONCURRENCY": "2"})


def test_no_repr_shows_a_value() -> None:
    """Settings appear in tracebacks and debuggers."""
    settings = Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "sqlite:///private.db"})
    assert KEY not in repr(settings)
    assert "private" not in repr(settings)


@pytest.mark.parametrize(
    "command", [None, ("-m", "uvicorn", "app:app", "--app-dir", ".", "--port", "{port}")]
)
def test_a_service_with_a_wrong_setting_says_one_line_and_ends(
    tmp_path_factory: pytest.TempPathFactory, command: tuple[str, ...] | None
) -> None:
    """Started in either way."""
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
    """If that is a Redis server, and no other server is configured."""
    assert Settings(database_url=url, rate_limit_storage=storage).counting_url == counting


@pytest.mark.parametrize("name", SET)
def test_a_name_with_the_prefix_is_taken_before_the_plain_one(name: str) -> None:
    """For every setting. The plain one is not even checked, because it may belong to another application."""
    right = {"host": "127.0.0.2", "auth_cookie": "a", "issuer": "https://a.example", "rate_limit": "1/minute",
             "app_title": "a", "audit_log": "off", "log_level": "debug", "log_format": "json", "metrics": "false",
             "audit_validations": "true", "rate_limit_storage": "redis://h", "trusted_proxies": "10.0.0.7",
             "cors_origins": "https://a.example", "anonymous_scopes": "read"}  # fmt: skip
    text = right.get(name, "2")
    plain = Settings.from_env({"SECRET_KEY": KEY, name.upper(): text})
    environ = {"SECRET_KEY": KEY, f"SIGNER_{name.upper()}": text, name.upper(): "\x00nonsense"}
    assert getattr(Settings.from_env(environ), name) == getattr(plain, name) != getattr(Settings(), name)
    assert taken_from(environ)[name.upper()] == f"SIGNER_{name.upper()}"


def test_a_wrong_value_is_named_as_it_was_set() -> None:
    """Otherwise the operator would correct the variable that is ignored."""
    with pytest.raises(ConfigurationError, match=r"^SIGNER_PORT must be"):
        Settings.from_env({"SIGNER_PORT": "x", "PORT": "80"})
    with pytest.raises(ConfigurationError, match=r"^SIGNER_PORT must be"):
        Settings.from_env({"SIGNER_PORT": "", "PORT": "80"})
    with pytest.raises(ConfigurationError, match=r"^SIGNER_SECRET_KEY: "):
        Settings.from_env({"SIGNER_SECRET_KEY": "", "SECRET_KEY": KEY})


def test_what_kubernetes_says_of_a_service_called_signer_is_no_setting() -> None:
    """Kubernetes sets SIGNER_PORT in pods beside such a service, as the links of Docker do."""
    environ = {"SIGNER_PORT": "tcp://10.0.0.1:8000", "SIGNER_SERVICE_HOST": "10.0.0.1", "PORT": "81"}
    assert Settings.from_env(environ).port == 81
    assert taken_from(environ) == {"PORT": "PORT"}


def ids(environ: dict[str, str]) -> list[str]:
    """The ids of the keys; the one that signs comes first."""
    keys = Settings.from_env(environ).keys
    assert keys is not None
    return [keys.current.id, *(kid for kid in keys.by_id if kid != keys.current.id)]


KID, OTHER_KID = (ids({"SECRET_KEY": key})[0] for key in (KEY, OTHER))


def test_a_key_with_the_prefix_leaves_the_plain_fallbacks_to_others() -> None:
    """They belong to another application, whose keys must not verify our tokens."""
    assert ids({"SIGNER_SECRET_KEY": KEY, "SECRET_KEY": "x", "SECRET_KEY_FALLBACKS": OTHER}) == [KID]
    assert ids({"SIGNER_SECRET_KEY": KEY, "SIGNER_SECRET_KEY_FALLBACKS": OTHER, "SECRET_KEY_FALLBACKS": "x"}) == [KID, OTHER_KID]  # fmt: skip


def test_a_plain_key_does_not_sign_beside_fallbacks_with_the_prefix(tmp_path: Path) -> None:
    """It may belong to another application: refused, even if the list is empty. The development service does
    not start."""
    (tmp_path / "old").write_text(OTHER)
    for name, text in (("", OTHER), ("", ""), ("_FILE", f"{tmp_path}/old")):
        with pytest.raises(
            ConfigurationError,
            match=f"^SIGNER_SECRET_KEY_FALLBACKS{name} is set and SIGNER_SECRET_KEY is not",
        ):
            Settings.from_env({f"SIGNER_SECRET_KEY_FALLBACKS{name}": text, "SECRET_KEY": KEY})


@pytest.mark.parametrize("prefix", ["", "SIGNER_"])
def test_secrets_can_stand_in_files(tmp_path: Path, prefix: str) -> None:
    """As Docker, Kubernetes and systemd provide them. One line end at the end is not a part of the secret."""
    for name, text in (
        ("key", f"{KEY}\n"),
        ("old", f"{OTHER}\n{OTHER}2, {OTHER}3\n"),
        ("url", "sqlite:///a b.db"),
    ):
        (tmp_path / name).write_text(text)
    environ = {
        f"{prefix}SECRET_KEY_FILE": f"{tmp_path}/key",
        f"{prefix}SECRET_KEY_FALLBACKS_FILE": f"{tmp_path}/old",
        f"{prefix}DATABASE_URL_FILE": f"{tmp_path}/url",
    }
    settings = Settings.from_env(environ)
    assert ids(environ) == [ids({"SECRET_KEY": key})[0] for key in (KEY, OTHER, f"{OTHER}2", f"{OTHER}3")]
    assert settings.database_url == "sqlite:///a b.db"
    assert list(taken_from(environ).values()) == list(environ)


def test_a_file_with_the_prefix_is_taken_before_plain_names(tmp_path: Path) -> None:
    """The plain variables are not read."""
    (tmp_path / "key").write_text(KEY)
    assert ids({"SIGNER_SECRET_KEY_FILE": f"{tmp_path}/key", "SECRET_KEY": "x", "SECRET_KEY_FILE": "x", "SECRET_KEY_FALLBACKS": "x"}) == [KID]  # fmt: skip
    environ = {"SIGNER_DATABASE_URL": "memory://", "DATABASE_URL": "x", "DATABASE_URL_FILE": "/no/such"}
    assert Settings.from_env(environ).database_url == "memory://"


@pytest.mark.parametrize(
    "name", ["SECRET_KEY", "SECRET_KEY_FALLBACKS", "DATABASE_URL", "SIGNER_DATABASE_URL"]
)
def test_a_setting_and_its_file_are_one_too_many(tmp_path: Path, name: str) -> None:
    """Either could be the outdated one."""
    (tmp_path / "file").write_text(OTHER)
    with pytest.raises(ConfigurationError, match=f"^{name} and {name}_FILE are both set") as caught:
        Settings.from_env({name: OTHER, f"{name}_FILE": f"{tmp_path}/file"})
    assert OTHER not in str(caught.value)


@pytest.mark.parametrize("name", ["SECRET_KEY_FILE", "SIGNER_SECRET_KEY_FALLBACKS_FILE", "DATABASE_URL_FILE"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (KEY.encode() + b"\xff", "it is not text in UTF-8"),
        (b"a" * (MAX_SETTING_FILE + 1), "it has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    """The message has its path and the reason, but nothing of its content."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: str(path)})
    assert str(caught.value) == f"{name}: the file '{path}' cannot be used: {reason}."
    assert caught.value.__context__ is None


@pytest.mark.parametrize("name", ["SECRET_KEY_FILE", "SIGNER_DATABASE_URL_FILE"])
@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """The development service must not start for it."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: str(path)})
    assert str(caught.value) == f"{name}: the file '{path}' cannot be used: it is empty."


def test_a_file_of_fallbacks_can_be_empty(tmp_path: Path) -> None:
    """It can be there before the first change of a key, so that a change needs no other settings."""
    (tmp_path / "fallbacks").write_text("\n")
    settings = Settings.from_env({"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS_FILE": f"{tmp_path}/fallbacks"})
    assert settings.keys is not None
    assert len(settings.keys.by_id) == 1


def test_the_line_end_of_other_systems_is_no_part_of_a_secret(tmp_path: Path) -> None:
    """With it, a URL would name another, empty list, on which nothing is revoked."""
    (tmp_path / "url").write_bytes(b"sqlite:///./list.db\r\n")
    assert Settings.from_env({"DATABASE_URL_FILE": f"{tmp_path}/url"}).database_url == "sqlite:///./list.db"


@pytest.mark.parametrize("slip", ["\r\r", " ", "\t", "\ufeff", "\u200b"])
def test_what_cannot_be_seen_is_no_part_of_a_key_or_a_url(tmp_path: Path, slip: str) -> None:
    """In a variable as well as in a file; also of a key that only verifies."""
    for name, text in ({"DATABASE_URL": "sqlite:///./list.db", "SECRET_KEY": KEY}).items():
        (tmp_path / "file").write_text(f"{text}{slip}\n")
        for environ in ({name: f"{text}{slip}"}, {f"{name}_FILE": f"{tmp_path}/file"}):
            with pytest.raises(ConfigurationError, match=f"^{next(iter(environ))}") as caught:
                Settings.from_env(environ)
            assert text not in str(caught.value)
    if slip.strip():  # blanks around a fallback are no part of it
        with pytest.raises(ConfigurationError, match=r"^SECRET_KEY_FALLBACKS"):
            Settings.from_env({"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": f"{slip}{OTHER}"})


def test_a_message_names_the_variable_that_counts() -> None:
    """To change the plain one would have no effect."""
    with pytest.raises(ConfigurationError, match=r"^SIGNER_DATABASE_URL=.* set SIGNER_WEB_CONCURRENCY=1"):
        Settings.from_env({"SIGNER_DATABASE_URL": "memory://", "SIGNER_WEB_CONCURRENCY": "2"})
    with pytest.raises(ConfigurationError, match=r"^SIGNER_HOST: .* for SIGNER_HOST=127\.0\.0\.1"):
        Settings.from_env({"SIGNER_HOST": "0.0.0.0"})


@pytest.mark.parametrize("name", ["SECRET_KEY_FILE", "DATABASE_URL_FILE"])
def test_a_file_of_two_lines_is_refused(tmp_path: Path, name: str) -> None:
    """There is no guess which line is meant."""
    (tmp_path / "secret").write_text(f"{KEY}\n{OTHER}\n")
    with pytest.raises(ConfigurationError, match="must hold one line"):
        Settings.from_env({name: f"{tmp_path}/secret"})


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe without a writer would block the start; a device may have no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ConfigurationError, match="it is not a regular file"):
            Settings.from_env({"SECRET_KEY_FILE": str(path)})


@pytest.mark.parametrize(
    "slip", [KEY, f"/{KEY}", f"/ab/{KEY}=", "postgresql://u:hidden@h/db", "a\nb", "\udcff", "\x00"]
)
def test_a_secret_in_the_place_of_its_file_is_not_repeated(slip: str) -> None:
    """A path is shown only if it can be nothing else."""
    with pytest.raises(
        ConfigurationError, match=r"^DATABASE_URL_FILE: the file that it names cannot be used"
    ) as caught:
        Settings.from_env({"DATABASE_URL_FILE": slip})
    assert not slip or slip not in str(caught.value)


def test_a_variable_that_names_no_file_says_so() -> None:
    """It is set, and empty."""
    with pytest.raises(
        ConfigurationError, match=r"^DATABASE_URL_FILE: the file '' \(no path\) cannot be used"
    ):
        Settings.from_env({"DATABASE_URL_FILE": ""})


def test_a_relative_path_is_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For development, with the file of `signer keygen > signer.key`."""
    monkeypatch.chdir(tmp_path)
    Path("signer.key").write_text(KEY)
    assert ids({"SECRET_KEY_FILE": "signer.key"}) == [KID]
    Path("signer.key").write_text("")
    with pytest.raises(ConfigurationError, match=r"'signer\.key' cannot be used: it is empty"):
        Settings.from_env({"SECRET_KEY_FILE": "signer.key"})


def test_a_setting_without_a_secret_is_in_no_file() -> None:
    """PORT_FILE is not a setting."""
    assert Settings.from_env({"PORT_FILE": "/no/such"}).port == 8000


def test_the_service_takes_its_key_from_a_file(tmp_path: Path) -> None:
    """Beside another application's key and database; with workers, which get it from their parent."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    settings = {
        "SIGNER_SECRET_KEY_FILE": "key", "SIGNER_DATABASE_URL": "sqlite:///./own.db", "WEB_CONCURRENCY": "2",
        "SECRET_KEY": "django-insecure", "DATABASE_URL": "mysql://elsewhere",
    }  # fmt: skip
    with Service(tmp_path, settings) as service:
        assert service.says_valid(Signer(KEY).issue())
    assert (tmp_path / "own.db").exists()


def test_what_was_found_shows_no_value() -> None:
    """It is handed to workers, in arguments that a log or a traceback may show."""
    found = variables_in({"SECRET_KEY": KEY, "DATABASE_URL": "postgresql://u:hidden@h/db"})
    shown = f"{found!r} {found['SECRET_KEY']} {partial(Settings.from_variables, found)!r}"
    assert "SECRET_KEY" in shown
    assert KEY not in shown
    assert "hidden" not in shown
