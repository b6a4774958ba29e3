"""Opens the list that a URL names."""

import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from ..errors import ConfigurationError, StoreError
from ..policy import PATIENCE
from .contract import Store
from .newest import Newest, NewestOfNode

MEMORY_URL: Final = "memory://"
_POSTGRES: Final = ("postgresql://", "postgres://")
_REDIS: Final = ("redis://", "rediss://", "redis+", "rediss+", "unix://")
_REMOTE: Final = ("https://", "http://")
_EXAMPLES: Final = (
    "sqlite:///./tokens.db, sqlite:////var/lib/signer/tokens.db?mode=rw, postgresql://user:password@host/database,"
    " redis://127.0.0.1:6379/0, https://client:credential@host, memory://"
)


def open_store(
    url: str,
    *,
    create: bool = True,
    staleness: float | None = None,
    only_reads: bool = False,
    node: str | os.PathLike[str] | None = None,
) -> Store:
    """Open the list that `url` names.

    `sqlite:///relative/path` or `sqlite:////absolute/path`; with `?mode=rw`, or if `create` is False, the
    file must exist already. `postgresql://user:password@host/database`, with libpq's options; if `create` is
    False, the list must be in it already. `redis://` and its variants (see redis/link.py) name a server, on
    which only create_list makes a list. `https://client:credential@host` is the list of another service, to
    look up only. `memory://` belongs to one process, and ends with it.

    Validations ask a copy in memory of a list on another machine, which is fresher than `staleness` seconds
    (see copies/view.py for 0). With None there is no copy, and the list is asked every time. With a number,
    an event loop may wait for the answers: those of a file come from a thread, within PATIENCE seconds or
    never.

    With `only_reads`, a file is opened even if it cannot be written at the moment.

    Processes that name the same folder `node`, which is empty when the first of them starts, refuse a list
    that is older than any of them has seen it. With None, a process refuses a list older than it has seen
    itself.

    Raises:
        ConfigurationError: the kind of list or an option is unknown, or its driver is not installed.
        StoreError: it cannot be opened.
    """
    if url == MEMORY_URL:
        from .memory import MemoryStore

        return MemoryStore()
    newest = Newest() if node is None else NewestOfNode(Path(node))
    try:
        return _opened(url, newest, create=create, staleness=staleness, only_reads=only_reads)
    except BaseException:
        newest.close()
        raise


def _opened(url: str, newest: Newest, *, create: bool, staleness: float | None, only_reads: bool) -> Store:
    if path := sqlite_path(url):
        from .sqlite.store import SQLiteStore

        return SQLiteStore(
            path,
            create=_may_create(url) and create,
            patience=None if staleness is None else PATIENCE,
            only_reads=only_reads,
            newest=newest,
        )
    if url.startswith(_POSTGRES):
        return _open_postgres(url, newest, create=create, staleness=staleness)
    if url.startswith(_REDIS):
        return _open_redis(url, newest, staleness=staleness)
    if url.startswith(_REMOTE):
        return _open_remote(url, newest, staleness)
    raise ConfigurationError(f"DATABASE_URL must be of one of these kinds: {_EXAMPLES}.")


def create_list(url: str) -> None:
    """Make an empty list, in which nothing is revoked, if `url` names none. Options of the URL have no
    effect.

    Raises:
        ConfigurationError: there is one already, or as open_store.
        StoreError: it cannot be made.
    """
    if url == MEMORY_URL or url.startswith(_REMOTE):
        raise ConfigurationError("DATABASE_URL names no list that can be made here.")
    url = url.partition("?")[0] if sqlite_path(url) else url
    try:
        open_store(url, create=False).close()
    except StoreError:  # usually because there is none; any other reason makes the next attempt fail, too
        store = _open_redis(url, Newest(), create=True) if url.startswith(_REDIS) else open_store(url)
        store.close()
        if getattr(store, "is_new", True):
            return
    raise ConfigurationError("There is a list at DATABASE_URL already: it is left as it is.")


def _open_postgres(url: str, newest: Newest, *, create: bool, staleness: float | None) -> Store:
    try:
        from .postgres.store import PostgresStore
    except ImportError:  # of the driver, or of the library that it needs
        raise ConfigurationError(
            "A list in PostgreSQL needs its driver: pip install 'signer-tokens[postgres]'."
        ) from None
    return PostgresStore(url, create=create, newest=newest, staleness=staleness)


def _open_redis(url: str, newest: Newest, *, create: bool = False, staleness: float | None = None) -> Store:
    try:
        from .redis.store import RedisStore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise ConfigurationError(
            "A list at a Redis server needs its driver: pip install 'signer-tokens[redis]'."
        ) from None
    return RedisStore(url, create=create, newest=newest, staleness=staleness)


def _open_remote(url: str, newest: Newest, staleness: float | None) -> Store:
    from .copies.remote import RemoteStore

    if not staleness:
        raise ConfigurationError(
            "The list of another service can only be copied: set how old the copy may be, such as"
            " REVOCATION_STALENESS_SECONDS=5."
        )
    return RemoteStore(url, staleness, newest=newest)


def is_remote(url: str) -> bool:
    """Whether `url` names the list of another service, which can only be copied."""
    return url.startswith(_REMOTE)


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
