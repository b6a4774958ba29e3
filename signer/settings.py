"""The settings; with environment.py the only reader of the environment."""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import Struct

from .audit import STDOUT
from .credentials import check_scopes
from .environment import FALLBACKS, PREFIX, SECRET_KEY, Variable, is_plain, read, variable_names
from .errors import ConfigurationError, KeyInvalid, RequestInvalid
from .policy import DEFAULT_GRACE, DEFAULT_LEEWAY, DEFAULT_MAX_TTL, DEFAULT_TTL, LONGEST_TTL
from .stores.opening import MEMORY_URL
from .tokens.keys import HOW_TO_MAKE_A_KEY, PRODUCTION_LINE, KeyRing

#: Labels of a name have 63 characters at most (RFC 1035, section 2.3.4).
_HOST: Final = r"(?!.*\.\.)(?!.*[0-9A-Za-z_-]{64})[0-9A-Za-z.:_-]{1,253}"
#: A cookie's name (RFC 6265, section 4.1.1).
_COOKIE: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
#: RFC 8414, section 2: no query, no fragment; and no slash at the end, so that paths can be joined to it.
_ISSUER: Final = r"https?://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9A-Za-z._~-]+)*"
_LINE: Final = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,200}"
_LINES: Final = r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]{0,4000}"
#: What a browser sends in the header Origin (RFC 6454, section 6.2): no path, no default port.
_ORIGIN: Final = r"https?://([0-9a-z.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
#: The notation of the library `limits`, which counts; see web/access/limits.py.
_RATE: Final = r"[1-9][0-9]{0,8} ?(/|per) ?([1-9][0-9]{0,3} ?)?(second|minute|hour|day)s?"
_REDIS: Final = r"rediss?://[\x21-\x7e]{1,300}"
#: Stands for no audit trail, where AUDIT_LOG could name a file; audit.STDOUT stands for standard output.
AUDIT_OFF: Final = "off"
LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class Settings(Struct, frozen=True, kw_only=True):
    """The checked settings. Its repr shows no value, because several are secret.

    `keys` is None where SECRET_KEY is not set: the development service, which makes its own key. Every other
    field is the setting of the same name in capitals; environment.py says which variable it is taken from.
    """

    keys: KeyRing | None = None
    database_url: str = "sqlite:///./tokens.db"
    token_ttl_minutes: int = DEFAULT_TTL // 60
    token_max_ttl_minutes: int = DEFAULT_MAX_TTL // 60
    token_leeway_seconds: int = DEFAULT_LEEWAY
    token_grace_seconds: int = DEFAULT_GRACE
    #: How old a copy of a revocation list on another machine may be; 0 for no copy.
    revocation_staleness_seconds: int = 0
    host: str = "127.0.0.1"
    port: int = 8000
    web_concurrency: int = 1
    anonymous_scopes: frozenset[str] = frozenset()
    #: The cookie that /auth reads; "" for none.
    auth_cookie: str = ""
    #: The URL that OAuth clients know the service by; "" for the URL of each request.
    issuer: str = ""
    app_title: str = "signer"
    app_description: str = "Stateless signed tokens: issue, validate, revoke."
    log_level: str = "info"
    log_format: str = "text"
    #: "stdout", "off", or the path of a file.
    audit_log: str = "stdout"
    audit_validations: bool = False
    #: Whether GET /metrics has anything to show.
    metrics: bool = True
    #: Such as "100/minute"; "" for no limit.
    rate_limit: str = ""
    #: The Redis server where all workers and machines count together; "" for each worker by itself.
    rate_limit_storage: str = ""
    #: Addresses and networks of proxies, whose forwarding headers are believed.
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`; a setting that is not there has its default.

        Raises:
            ConfigurationError: naming the variable, what is wrong with it and what would be right.
        """
        return cls.from_variables(variables_in(environ))

    @classmethod
    def from_variables(cls, found: Mapping[str, Variable]) -> "Settings":
        """The settings in what environment.read found.

        Raises:
            ConfigurationError: as from_env.
        """
        values = _values(found, _RULES)
        longest = values.get("token_max_ttl_minutes", DEFAULT_MAX_TTL // 60)
        # A shorter maximum also shortens the default, which nobody asked for.
        usual = min(DEFAULT_TTL // 60, longest)
        life = _values(found, {"token_ttl_minutes": _whole(1, longest, usual)})
        settings = cls(keys=_keys(found), **{"token_ttl_minutes": usual} | values | life)
        settings._check_together({name: variable.name for name, variable in found.items()})
        return settings

    @property
    def is_development(self) -> bool:
        """Whether this is the development service, which has no SECRET_KEY."""
        return self.keys is None

    @property
    def counting_url(self) -> str:
        """The Redis server that counts the calls for RATE_LIMIT; "" where each worker counts for itself."""
        on_redis = self.database_url.startswith(("redis://", "rediss://"))
        return self.rate_limit_storage or (self.database_url.partition("?")[0] if on_redis else "")

    def _check_together(self, names: Mapping[str, str]) -> None:
        if self.web_concurrency > 1 and self.database_url == MEMORY_URL:
            url, workers = (names.get(name, name) for name in ("DATABASE_URL", "WEB_CONCURRENCY"))
            raise ConfigurationError(f"{url}={MEMORY_URL} serves one process: set {workers}=1.")
        if self.is_development and self.host not in ("127.0.0.1", "::1", "localhost"):
            host = names.get("HOST", "HOST")
            raise ConfigurationError(
                f"{host}: without SECRET_KEY this is a development service, for {host}=127.0.0.1 only."
                f" For production: {PRODUCTION_LINE}"
            )

    def __repr__(self) -> str:
        return f"Settings(is_development={self.is_development})"


def variables_in(environ: Mapping[str, str]) -> dict[str, Variable]:
    """What the environment and its files say of the settings that are set, to be read once for several
    processes.

    Raises:
        ConfigurationError: naming the variable: it is set twice, or its file cannot be used.
    """
    return read(environ, _names())


def taken_from(environ: Mapping[str, str]) -> dict[str, str]:
    """Of all settings that are set in `environ`, the variable that each is taken from.

    Raises:
        ConfigurationError: a setting and its file are both set.
    """
    return variable_names(environ, _names())


def _names() -> list[str]:
    others = [name.upper() for name in Settings.__struct_fields__ if name != "keys"]
    return [SECRET_KEY, FALLBACKS, *others]


def _keys(found: Mapping[str, Variable]) -> KeyRing | None:
    current, listed = found.get(SECRET_KEY), found.get(FALLBACKS)
    if current is None:
        # With the prefix even an empty list is refused: the plain SECRET_KEY would be ignored, so that the
        # development service would start.
        prefix = PREFIX if listed and listed.name.startswith(PREFIX) else ""
        if listed and (listed.text or prefix):
            missing = f"{prefix}{SECRET_KEY}"
            raise KeyInvalid(f"{listed.name} is set and {missing} is not: set the key that signs.")
        return None
    # A comma would split the key when it becomes a fallback; a line end is a mistake.
    key = current.text
    if "," in key or not is_plain(key):
        raise KeyInvalid(
            f"{current.name} holds a comma, a line end or a space at an end. {HOW_TO_MAKE_A_KEY}"
        )
    ring = _ring(current.name, key)
    if listed is None or not listed.text.strip():
        return ring
    fallbacks = _listed(listed.text)
    if not all(map(is_plain, fallbacks)):
        raise KeyInvalid(f"{listed.name} holds a character that cannot be printed. {HOW_TO_MAKE_A_KEY}")
    return _ring(listed.name, key, fallbacks)


def _ring(name: str, current: str, fallbacks: Sequence[str] = ()) -> KeyRing:
    try:
        return KeyRing(current, fallbacks)
    except KeyInvalid as error:
        raise KeyInvalid(f"{name}: {error}") from None


class _Rule(NamedTuple):
    """How the text of a setting becomes its value.

    `parse` raises ValueError for a text that is not `wanted`, or RequestInvalid with its own explanation.
    """

    parse: Callable[[str], Any]
    wanted: str = "text"


def _values(found: Mapping[str, Variable], rules: Mapping[str, _Rule]) -> dict[str, Any]:
    """The values of those fields that are set."""
    variables = {field: found.get(field.upper()) for field in rules}
    return {field: _parsed(variable, rules[field]) for field, variable in variables.items() if variable}


def _parsed(variable: Variable, rule: _Rule) -> Any:
    try:
        return rule.parse(variable.text)
    except ValueError:
        raise ConfigurationError(f"{variable.name} must be {rule.wanted}.") from None
    except RequestInvalid as error:
        raise ConfigurationError(f"{variable.name}: {error}") from None


def _matching(pattern: str, wanted: str) -> _Rule:
    return _Rule(lambda text: _matched(pattern, text), wanted)


def _matched(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError
    return text


def _whole(least: int, most: int, example: int) -> _Rule:
    def parse(text: str) -> int:
        number = int(_matched("[0-9]{1,10}", text.strip()))
        if not least <= number <= most:
            raise ValueError
        return number

    return _Rule(parse, f"a whole number from {least} to {most}, such as {example}")


def _one_of(*choices: str) -> _Rule:
    return _Rule(lambda text: _choice(text, choices), f"one of {', '.join(choices)}")


def _choice(text: str, choices: Sequence[str]) -> str:
    choice = text.strip().lower()
    if choice not in choices:
        raise ValueError
    return choice


def _switch() -> _Rule:
    choices = ("true", "false")
    return _Rule(lambda text: _choice(text, choices) == "true", f"one of {', '.join(choices)}")


T = TypeVar("T")


def _list_of(item: Callable[[str], T], wanted: str) -> _Rule:
    return _Rule(lambda text: tuple(item(part) for part in _listed(text)), wanted)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _network(text: str) -> str:
    # Strict, because 10.0.0.7/8 may be meant as one machine, and would trust millions.
    ip_network(text)
    return text


def _origin(text: str) -> str:
    return _matched(_ORIGIN, text)


def _url(text: str) -> str:
    if not is_plain(text):
        raise ValueError
    return text


def _audit_log(text: str) -> str:
    file = _matched(_LINE, text).strip()
    return file.lower() if file.lower() in (STDOUT, AUDIT_OFF) else file


#: All fields but `keys`, and `token_ttl_minutes`, whose maximum is a setting.
_RULES: Final = {
    "database_url": _Rule(_url, "a URL of printable characters, without blanks around it"),
    "token_max_ttl_minutes": _whole(1, LONGEST_TTL // 60, DEFAULT_MAX_TTL // 60),
    "token_leeway_seconds": _whole(0, 300, DEFAULT_LEEWAY),
    "token_grace_seconds": _whole(0, 300, DEFAULT_GRACE),
    "revocation_staleness_seconds": _whole(0, 3600, 0),
    # An empty name would listen on every address.
    "host": _matching(_HOST, "an address or a name, such as 127.0.0.1 or 0.0.0.0"),
    "port": _whole(0, 65535, 8000),
    "web_concurrency": _whole(1, 1024, 1),
    "anonymous_scopes": _Rule(check_scopes),
    "auth_cookie": _matching(_COOKIE, "a name, such as session"),
    "issuer": _matching(_ISSUER, "a URL such as https://tokens.example.org"),
    "app_title": _matching(_LINE, "text on one line"),
    "app_description": _matching(_LINES, "text"),
    "log_level": _one_of(*LOG_LEVELS),
    "log_format": _one_of(*LOG_FORMATS),
    "audit_log": _Rule(_audit_log, "stdout, off, or a file such as /var/log/signer/audit.log"),
    "audit_validations": _switch(),
    "metrics": _switch(),
    "rate_limit": _matching(
        f"{_RATE}( ?[;,] ?{_RATE})*", "numbers of calls in a time, such as 100/minute or 10/second;1000/hour"
    ),
    "rate_limit_storage": _matching(_REDIS, "the URL of a Redis server, such as redis://127.0.0.1:6379/0"),
    "trusted_proxies": _list_of(_network, "addresses or networks, such as 10.0.0.7,192.168.0.0/16"),
    "cors_origins": _list_of(_origin, "origins such as https://app.example.org,https://example.org:8443"),
}
