"""From a URL to a list."""

import re
from typing import Final
from urllib.parse import unquote

from ..errors import ConfigurationError
from .base import Store
from .followed import Followable, FollowedStore

MEMORY_URL: Final = "memory://"
_POSTGRES: Final = ("postgresql://", "postgres://")
_REMOTE: Final = ("https://", "http://")
_SERVICE: Final = r"https?://[^\s/?#@]+@[0-9A-Za-z.:\[\]-]+(/[0-9A-Za-z._~/-]*)?"
_EXAMPLES: Final = (
    "sqlite:///./tokens.db, sqlite:////var/lib/signer/tokens.db?mode=rw, postgresql://user:password@host/database,"
    " https://client:credential@host, memory://"
)


def open_store(url: str, *, create: bool = True, staleness: float = 0.0) -> Store:
    """Open the list that `url` names.

    `sqlite:///relative/path` or `sqlite:////absolute/path`; with `?mode=rw`, or where `create` is False, the
    file must exist already. `postgresql://user:password@host/database`, with libpq's options; where `create`
    is False, the list must be in it already. `https://client:credential@host` is the list of a service
    elsewhere, to look up only. `memory://` is one process's own and forgets.

    Of lists on other machines a copy is kept here, for validations, that is fresher than `staleness`
    seconds; at 0 they are asked every time.

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
    if url.startswith(_POSTGRES):
        return _followed(_open_postgres(url, create=create), staleness)
    if url.startswith(_REMOTE):
        return _open_remote(url, staleness)
    raise ConfigurationError(f"DATABASE_URL must be of one of these kinds: {_EXAMPLES}.")


def _followed(store: Followable, staleness: float) -> Store:
    if not staleness:
        return store
    try:
        return FollowedStore(store, staleness)
    except BaseException:
        store.close()
        raise


def _open_postgres(url: str, *, create: bool) -> Followable:
    try:
        from .postgres import PostgresStore
    except ImportError as error:
        raise ConfigurationError(
            "A list in PostgreSQL needs its driver: pip install 'signer[postgres]'."
        ) from error
    return PostgresStore(url, create=create)


def _open_remote(url: str, staleness: float) -> Store:
    from .remote import RemoteStore

    if not re.fullmatch(_SERVICE, url):
        raise ConfigurationError(
            "DATABASE_URL, where it names a service, must be like https://CLIENT:CREDENTIAL@tokens.example.org."
        )
    if not staleness:
        raise ConfigurationError(
            "The list of another service can only be copied: say how old the copy may be, such as"
            " REVOCATION_STALENESS_SECONDS=5."
        )
    return RemoteStore(url, staleness)


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
