"""From a URL to a list."""

from typing import Final
from urllib.parse import unquote

from ..errors import ConfigurationError
from .base import Store

MEMORY_URL: Final = "memory://"
_EXAMPLES = (
    "sqlite:///./tokens.db, sqlite:////var/lib/signer/tokens.db?mode=rw,"
    " postgresql://user:password@host/database, memory://"
)


def open_store(url: str, *, create: bool = True) -> Store:
    """Open the list that `url` names.

    `sqlite:///relative/path` or `sqlite:////absolute/path`; with `?mode=rw`, or where `create` is False, the
    file must exist already. `postgresql://user:password@host/database`, with libpq's options; where `create`
    is False, the list must be in it already. `memory://` is one process's own and forgets.

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
    if url.startswith(("postgresql://", "postgres://")):
        return _open_postgres(url, create=create)
    raise ConfigurationError(f"DATABASE_URL must be of one of these kinds: {_EXAMPLES}.")


def _open_postgres(url: str, *, create: bool) -> Store:
    try:
        from .postgres import PostgresStore
    except ImportError as error:
        raise ConfigurationError(
            "A list in PostgreSQL needs its driver: pip install 'signer[postgres]'."
        ) from error
    return PostgresStore(url, create=create)


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
