"""From a URL to a list."""

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ..errors import ConfigurationError
from .base import Store

if TYPE_CHECKING:
    from .redis import RedisStore

MEMORY_URL: Final = "memory://"
_EXAMPLES: Final = (
    "sqlite:///./tokens.db, sqlite:////var/lib/signer/tokens.db?mode=rw, redis://127.0.0.1:6379/0, memory://"
)
_REDIS: Final = ("redis://", "rediss://", "redis+", "rediss+", "unix://")


def open_store(url: str, *, create: bool = True) -> Store:
    """Open the list that `url` names.

    `sqlite:///relative/path` or `sqlite:////absolute/path`; with `?mode=rw`, or where `create` is False, the
    file must exist already. `memory://` is one process's own and forgets. `redis://` and its relatives (see
    redis_link.py) lead to a server, on which a list is never made here, but by create_list.

    Raises:
        ConfigurationError: no such kind of list, an option it does not have, or its driver is not installed.
        StoreError: it cannot be opened.
    """
    if url == MEMORY_URL:
        from .memory import MemoryStore

        return MemoryStore()
    if path := sqlite_path(url):
        from .sqlite import SQLiteStore

        return SQLiteStore(path, create=_may_create(url) and create)
    if url.startswith(_REDIS):
        return _on_redis(url)
    raise ConfigurationError(f"DATABASE_URL must be of one of these kinds: {_EXAMPLES}.")


def create_list(url: str) -> None:
    """Make an empty list, on which nothing is revoked, where `url` names none; whatever its options say.

    Raises:
        ConfigurationError: there is one already, or as open_store.
        StoreError: it cannot be made.
    """
    path = sqlite_path(url)
    if url.startswith(_REDIS):
        store = _on_redis(url, create=True)
        is_new = store.is_new
        store.close()
    elif path:
        is_new = not Path(path).exists()
        open_store(url.partition("?")[0]).close()
    else:
        raise ConfigurationError(
            "DATABASE_URL names no list that could be made: it lives in memory, or nowhere."
        )
    if not is_new:
        raise ConfigurationError("There is a list at DATABASE_URL already: it is left as it is.")


def _on_redis(url: str, *, create: bool = False) -> "RedisStore":
    try:
        from .redis import RedisStore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise ConfigurationError("DATABASE_URL names a Redis server: pip install 'signer[redis]'") from None
    return RedisStore(url, create=create)


def sqlite_path(url: str) -> str:
    """The file that a `sqlite:///` URL names; "" for every other URL."""
    path = url.removeprefix("sqlite:///").partition("?")[0]
    return unquote(path) if url.startswith("sqlite:///") and path != ":memory:" else ""


def _may_create(url: str) -> bool:
    modes = {"": True, "mode=rwc": True, "mode=rw": False}
    option = url.partition("?")[2]
    if option not in modes:
        raise ConfigurationError(
            "DATABASE_URL knows one option: ?mode=rw (the file must exist) or ?mode=rwc."
        )
    return modes[option]
