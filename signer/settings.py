"""The settings; the only reader of the environment."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from .credentials import check_scopes
from .errors import ConfigurationError, KeyInvalid, RequestInvalid
from .keys import KeyRing
from .requests import LONGEST_TTL

DEFAULT_DATABASE_URL: Final = "sqlite:///./tokens.db"
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class Settings(Struct, frozen=True, kw_only=True):
    """What the environment says, checked. Its repr names no value: several are secret.

    `keys` is None where SECRET_KEY is not set: the development service, which makes its own key.
    """

    keys: KeyRing | None = None
    database_url: str = DEFAULT_DATABASE_URL
    token_ttl_minutes: int = 60
    token_max_ttl_minutes: int = 90 * 24 * 60
    token_leeway_seconds: int = 10
    host: str = "127.0.0.1"
    port: int = 8000
    web_concurrency: int = 1
    anonymous_scopes: frozenset[str] = frozenset()
    log_level: str = "info"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """The settings in `environ`; what is not set takes its default.

        Raises:
            ConfigurationError: naming the setting, what is wrong with it and what would be right.
        """
        longest = _integer(environ, "TOKEN_MAX_TTL_MINUTES", 90 * 24 * 60, 1, LONGEST_TTL // 60)
        settings = cls(
            keys=_keys(environ),
            database_url=environ.get("DATABASE_URL", DEFAULT_DATABASE_URL),
            token_ttl_minutes=_integer(environ, "TOKEN_TTL_MINUTES", min(60, longest), 1, longest),
            token_max_ttl_minutes=longest,
            token_leeway_seconds=_integer(environ, "TOKEN_LEEWAY_SECONDS", 10, 0, 300),
            host=_host(environ),
            port=_integer(environ, "PORT", 8000, 0, 65535),
            web_concurrency=_integer(environ, "WEB_CONCURRENCY", 1, 1, 1024),
            anonymous_scopes=_scopes(environ, "ANONYMOUS_SCOPES"),
            log_level=_choice(environ, "LOG_LEVEL", "info", LOG_LEVELS),
        )
        settings._check_together()
        return settings

    @property
    def is_development(self) -> bool:
        """Whether this is the development service: no SECRET_KEY."""
        return self.keys is None

    def _check_together(self) -> None:
        if self.web_concurrency > 1 and self.database_url == "memory://":
            raise ConfigurationError("DATABASE_URL=memory:// serves one process: set WEB_CONCURRENCY=1.")
        if self.is_development and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigurationError(
                "HOST: without SECRET_KEY this is a development service, for HOST=127.0.0.1 only."
                ' Set SECRET_KEY="$(python -m signer keygen)", and keep that key.'
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
        raise KeyInvalid(
            "SECRET_KEY holds a comma, a line end or a space at an end. Make one with:"
            " python -m signer keygen"
        )
    try:
        return KeyRing(current, fallbacks)
    except KeyInvalid as error:
        raise KeyInvalid(f"SECRET_KEY or SECRET_KEY_FALLBACKS: {error}") from None


def _host(environ: Mapping[str, str]) -> str:
    # An empty one would listen to the world.
    host = environ.get("HOST", "127.0.0.1")
    if not re.fullmatch("[0-9A-Za-z.:_-]+", host):
        raise ConfigurationError("HOST must be an address or a name, such as 127.0.0.1 or 0.0.0.0.")
    return host


def _integer(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name, str(default)).strip()
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {most}, such as {default}.")
    return int(text)


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
