"""The settings; the only reader of the environment."""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Final, TypeVar

from msgspec import Struct

from .audit import STDOUT
from .credentials import check_scopes
from .errors import ConfigurationError, KeyInvalid, RequestInvalid
from .policy import DEFAULT_GRACE, DEFAULT_LEEWAY, DEFAULT_MAX_TTL, DEFAULT_TTL, LONGEST_TTL
from .stores.opening import MEMORY_URL
from .tokens.keys import HOW_TO_MAKE_A_KEY, PRODUCTION_LINE, KeyRing

#: Labels of a name have 63 characters at most (RFC 1035, section 2.3.4).
_HOST: Final = r"(?!.*\.\.)(?!.*[0-9A-Za-z_-]{64})[0-9A-Za-z.:_-]{1,253}"
#: RFC 6265, section 4.1.1.
_COOKIE: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
#: RFC 8414, section 2: no query, no fragment; and no slash at the end, so that paths can be joined to it.
_ISSUER: Final = r"https?://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9A-Za-z._~-]+)*"
_LINE: Final = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}"
_LINES: Final = r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]{0,4000}"
#: What a browser sends as Origin (RFC 6454, section 6.2): no path, no default port.
_ORIGIN: Final = r"https?://([0-9a-z.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
#: As in the notation of the library `limits`, which counts; see web/limits.py.
_RATE: Final = r"[1-9][0-9]{0,8} ?(/|per) ?([1-9][0-9]{0,3} ?)?(second|minute|hour|day)s?"
_REDIS: Final = r"rediss?://[\x21-\x7e]{1,300}"
#: Instead of a file's name; audit.STDOUT is another.
AUDIT_OFF: Final = "off"
LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class Settings(Struct, frozen=True, kw_only=True):
    """What the environment says, checked. Its repr names no value: several are secret.

    `keys` is None where SECRET_KEY is not set: the development service, which makes its own key.
    """

    keys: KeyRing | None = None
    database_url: str = "sqlite:///./tokens.db"
    token_ttl_minutes: int = DEFAULT_TTL // 60
    token_max_ttl_minutes: int = DEFAULT_MAX_TTL // 60
    token_leeway_seconds: int = DEFAULT_LEEWAY
    token_grace_seconds: int = DEFAULT_GRACE
    #: How old a copy of a list on another machine may be; 0 for no copy.
    revocation_staleness_seconds: int = 0
    host: str = "127.0.0.1"
    port: int = 8000
    web_concurrency: int = 1
    anonymous_scopes: frozenset[str] = frozenset()
    #: The cookie that /auth reads; "" for none.
    auth_cookie: str = ""
    #: The URL the service is known by; "" for the one it is called at.
    issuer: str = ""
    app_title: str = "signer"
    app_description: str = "Stateless signed tokens: issue, validate, revoke."
    log_level: str = "info"
    log_format: str = "text"
    #: "stdout", "off", or a file.
    audit_log: str = "stdout"
    audit_validations: bool = False
    #: Whether anything is counted for GET /metrics.
    metrics: bool = True
    #: Such as "100/minute"; "" for no limit.
    rate_limit: str = ""
    #: Where several workers or machines count together; "" for each by itself.
    rate_limit_storage: str = ""
    #: Addresses and networks whose forwarding headers are believed.
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`; what is not set takes its default.

        Raises:
            ConfigurationError: naming the setting, what is wrong with it and what would be right.
        """
        default = cls()
        longest = _integer(
            environ, "TOKEN_MAX_TTL_MINUTES", default.token_max_ttl_minutes, 1, LONGEST_TTL // 60
        )
        usual = min(default.token_ttl_minutes, longest)
        settings = cls(
            keys=_keys(environ),
            database_url=environ.get("DATABASE_URL", default.database_url),
            token_ttl_minutes=_integer(environ, "TOKEN_TTL_MINUTES", usual, 1, longest),
            token_max_ttl_minutes=longest,
            token_leeway_seconds=_integer(
                environ, "TOKEN_LEEWAY_SECONDS", default.token_leeway_seconds, 0, 300
            ),
            token_grace_seconds=_integer(environ, "TOKEN_GRACE_SECONDS", default.token_grace_seconds, 0, 300),
            revocation_staleness_seconds=_integer(
                environ, "REVOCATION_STALENESS_SECONDS", default.revocation_staleness_seconds, 0, 3600
            ),
            # An empty one would listen to the world.
            host=_text(
                environ, "HOST", default.host, _HOST, "an address or a name, such as 127.0.0.1 or 0.0.0.0"
            ),
            port=_integer(environ, "PORT", default.port, 0, 65535),
            web_concurrency=_integer(environ, "WEB_CONCURRENCY", default.web_concurrency, 1, 1024),
            anonymous_scopes=_scopes(environ, "ANONYMOUS_SCOPES"),
            auth_cookie=_text(
                environ, "AUTH_COOKIE", default.auth_cookie, _COOKIE, "a name, such as session"
            ),
            issuer=_text(
                environ, "ISSUER", default.issuer, _ISSUER, "a URL such as https://tokens.example.org"
            ),
            app_title=_text(environ, "APP_TITLE", default.app_title, _LINE, "text on one line"),
            app_description=_text(environ, "APP_DESCRIPTION", default.app_description, _LINES, "text"),
            log_level=_choice(environ, "LOG_LEVEL", default.log_level, LOG_LEVELS),
            log_format=_choice(environ, "LOG_FORMAT", default.log_format, LOG_FORMATS),
            audit_log=_audit_log(environ, default.audit_log),
            audit_validations=_choice(environ, "AUDIT_VALIDATIONS", "false", ("true", "false")) == "true",
            metrics=_choice(environ, "METRICS", "true", ("true", "false")) == "true",
            rate_limit=_text(
                environ,
                "RATE_LIMIT",
                default.rate_limit,
                f"{_RATE}( ?[;,] ?{_RATE})*",
                "numbers of calls in a time, such as 100/minute or 10/second;1000/hour",
            ),
            rate_limit_storage=_text(
                environ,
                "RATE_LIMIT_STORAGE",
                default.rate_limit_storage,
                _REDIS,
                "the URL of a Redis server, such as redis://127.0.0.1:6379/0",
            ),
            trusted_proxies=_list(
                environ, "TRUSTED_PROXIES", _network, "addresses or networks, such as 10.0.0.7,192.168.0.0/16"
            ),
            cors_origins=_list(
                environ,
                "CORS_ORIGINS",
                _origin,
                "origins such as https://app.example.org,https://example.org:8443",
            ),
        )
        settings._check_together()
        return settings

    @property
    def is_development(self) -> bool:
        """Whether this is the development service: no SECRET_KEY."""
        return self.keys is None

    @property
    def counting_url(self) -> str:
        """Where calls are counted that RATE_LIMIT limits; "" for each worker by itself."""
        on_redis = self.database_url.startswith(("redis://", "rediss://"))
        return self.rate_limit_storage or (self.database_url.partition("?")[0] if on_redis else "")

    def _check_together(self) -> None:
        if self.web_concurrency > 1 and self.database_url == MEMORY_URL:
            raise ConfigurationError("DATABASE_URL=memory:// serves one process: set WEB_CONCURRENCY=1.")
        if self.is_development and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigurationError(
                "HOST: without SECRET_KEY this is a development service, for HOST=127.0.0.1 only."
                f" For production: {PRODUCTION_LINE}"
            )

    def __repr__(self) -> str:
        return f"Settings(is_development={self.is_development})"


def _keys(environ: Mapping[str, str]) -> KeyRing | None:
    current = environ.get("SECRET_KEY")
    listed = environ.get("SECRET_KEY_FALLBACKS", "")
    if current is None:
        if listed:
            raise KeyInvalid("SECRET_KEY_FALLBACKS is set and SECRET_KEY is not: set the key that signs.")
        return None
    fallbacks = [key.strip() for key in listed.split(",")] if listed.strip() else []
    # A comma would cut the key in two on the day it moves to the fallbacks; a line end is a slip.
    if "," in current or current != current.strip() or not current.isprintable():
        raise KeyInvalid(f"SECRET_KEY holds a comma, a line end or a space at an end. {HOW_TO_MAKE_A_KEY}")
    ring = _ring("SECRET_KEY", current)
    return _ring("SECRET_KEY_FALLBACKS", current, fallbacks) if fallbacks else ring


def _ring(name: str, current: str, fallbacks: Sequence[str] = ()) -> KeyRing:
    try:
        return KeyRing(current, fallbacks)
    except KeyInvalid as error:
        raise KeyInvalid(f"{name}: {error}") from None


def _text(environ: Mapping[str, str], name: str, default: str, pattern: str, wanted: str) -> str:
    text = environ.get(name, default)
    if name in environ and not re.fullmatch(pattern, text):
        raise ConfigurationError(f"{name} must be {wanted}.")
    return text


def _audit_log(environ: Mapping[str, str], default: str) -> str:
    wanted = "stdout, off, or a file such as /var/log/signer/audit.log"
    text = _text(environ, "AUDIT_LOG", default, _LINE, wanted).strip()
    return text.lower() if text.lower() in (STDOUT, AUDIT_OFF) else text


def _integer(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name, str(default)).strip()
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {most}, such as {default}.")
    return int(text)


T = TypeVar("T")


def _list(environ: Mapping[str, str], name: str, parsed: Callable[[str], T], wanted: str) -> tuple[T, ...]:
    listed = environ.get(name, "")
    try:
        return tuple(parsed(item.strip()) for item in listed.split(",")) if listed.strip() else ()
    except ValueError:
        raise ConfigurationError(f"{name} must be {wanted}.") from None


def _network(text: str) -> str:
    # Strictly: 10.0.0.7/8 may mean the one machine, and would trust millions.
    ip_network(text)
    return text


def _origin(text: str) -> str:
    if not re.fullmatch(_ORIGIN, text):
        raise ValueError
    return text


def _choice(environ: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = environ.get(name, default).strip().lower()
    if text not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}.")
    return text


def _scopes(environ: Mapping[str, str], name: str) -> frozenset[str]:
    try:
        return check_scopes(environ.get(name, ""))
    except RequestInvalid as error:
        raise ConfigurationError(f"{name}: {error}") from None
