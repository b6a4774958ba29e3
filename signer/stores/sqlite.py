"""The list in one SQLite file, shared by every process of a machine.

Clustered by expiry, so that a look-up is one step (the token carries `exp`) and a purge deletes a range
at one end. WAL, so that readers never wait; synchronous=FULL, so that what was acknowledged survives a
power cut. The file is opened by its inode and watched: SQLite itself would go on happily with a file
that was deleted or replaced underneath it, and every revocation in it would be undone
(sqlite.org/howtocorrupt.html, sections 1.5 and 2.4). An older copy written over the same file is noticed
only where it takes the count of changes back with it: while the newest pages lie in the -wal, it is not.
"""

import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ..errors import StoreError
from ..files import sync_directory, sync_file
from .base import MAX_GROUPS, PURGE_STEP, Entry

logger = logging.getLogger(__name__)

#: "sgtl": marks a file as ours, so that no other database is taken for an empty list.
_APPLICATION_ID: Final = 0x7367746C
_VERSION: Final = 3
#: The file, and SQLite's own beside it: where one is lost, old and new processes write past each other.
_SUFFIXES: Final = ("", "-wal", "-shm")
_SCHEMA: Final = f"""
CREATE TABLE tokens (
    expires_at INTEGER NOT NULL,
    jti TEXT NOT NULL,
    revoked INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    rotated_at INTEGER NOT NULL,
    PRIMARY KEY (expires_at, jti)
) WITHOUT ROWID;
CREATE TABLE groups (
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX groups_by_expiry ON groups (expires_at);
CREATE TABLE marks (
    generation INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    changes INTEGER NOT NULL
);
INSERT INTO marks VALUES (0, 0, 0);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""  # noqa: S608 - two integers of ours
#: One statement sees one snapshot: token, groups and marks as they stood together.
_LOOKUP: Final = """
SELECT revoked, uses, rotated_at, (SELECT max(generation) FROM groups WHERE name IN (?, ?, ?, ?, ?)), horizon,
changes FROM marks LEFT JOIN tokens ON expires_at = ? AND jti = ?
"""
_INSERT: Final = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?) ON CONFLICT (expires_at, jti) DO UPDATE SET "
#: The first key past the step; a range from the expiring end up to it is one cheap delete.
_PURGE_BOUND: Final = """
SELECT expires_at, jti FROM tokens WHERE expires_at < ? ORDER BY expires_at, jti LIMIT 1 OFFSET ?
"""
_PURGE_TOKENS: Final = "DELETE FROM tokens WHERE (expires_at, jti) < (?, ?)"
_PURGE_GROUPS: Final = """
DELETE FROM groups WHERE name IN
    (SELECT name FROM groups WHERE expires_at < ? ORDER BY expires_at LIMIT ?)
"""


class SQLiteStore:
    """A Store in the SQLite file at `path`.

    Args:
        path: the file. Beside it stand SQLite's own `-wal` and `-shm`, which belong to it.
        create: make the file where there is none; False where a missing file means a lost list.
        timeout: seconds a call waits for another process's write.

    Raises:
        StoreError: the file is missing, not a list, of a later version, damaged or not writable.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()
        # How many changes the list had when last read and written: fewer means an older file lies here now.
        self._seen = self._made = 0
        self._path = Path(path)
        with self._translated(), ExitStack() as opened:
            # Absolute, or a later chdir would make another file ours; SQLite follows links, so must we.
            self._path = Path(path).resolve()
            str(self._path).encode()  # raises for a name that SQLite could not open, before there is a file
            self._files = tuple(f"{self._path}{suffix}" for suffix in _SUFFIXES)
            if create:
                _create(self._path)
            elif not self._path.exists():
                raise StoreError(
                    f"There is no list {self._path}: put it back. If there never was one, start once with one"
                    " process and without ?mode=rw in DATABASE_URL."
                )
            self._pid = os.getpid()
            self._reader = opened.enter_context(closing(_connect(self._path, timeout)))
            self._writer = opened.enter_context(closing(_connect(self._path, timeout)))
            self._reader.execute("PRAGMA query_only = ON")
            # In WAL a reader waits for nobody but a lock-out, and an event loop must not wait for that.
            self._reader.execute("PRAGMA busy_timeout = 250")
            self._identity = self._identify()
            self.ping()
            opened.pop_all()
        logger.info("Opened the list %s", self._path)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        names = (*groups, *[None] * (MAX_GROUPS - len(groups)))
        with self._reading() as reader:
            row = reader.execute(_LOOKUP, (*names, exp, jti)).fetchone()
            revoked, uses, rotated_at, generation, horizon, changes = row
            self._check_changes(changes, self._seen)
            self._seen = changes
            return Entry(
                bool(revoked), int(uses or 0), int(rotated_at or 0), int(generation or 0), int(horizon)
            )

    def revoke(self, jti: str, exp: int) -> None:
        with self._writing() as writer:
            writer.execute(_INSERT + "revoked = 1", (exp, jti, 1, 0, 0))

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        with self._writing() as writer:
            row = writer.execute(_LOOKUP, (*[None] * MAX_GROUPS, exp, jti)).fetchone()
            revoked, uses, rotated_at, _, horizon, _ = row
            uses = int(uses or 0)
            if revoked or rotated_at or uses >= limit or exp < horizon:
                return None
            writer.execute(_INSERT + "uses = uses + 1", (exp, jti, 0, 1, 0))
            return uses + 1

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        with self._writing() as writer:
            row = writer.execute(_LOOKUP, (*[None] * MAX_GROUPS, exp, jti)).fetchone()
            revoked, uses, rotated_at, _, horizon, _ = row
            if revoked or uses or exp < horizon:
                return None
            if not rotated_at:
                writer.execute(_INSERT + "rotated_at = excluded.rotated_at", (exp, jti, 0, 0, now))
            return int(rotated_at or now)

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        with self._writing() as writer:
            writer.execute("UPDATE marks SET generation = max(?, generation + 1)", (now_ms,))
            generation, horizon = writer.execute("SELECT generation, horizon FROM marks").fetchone()
            expires_at = max(generation // 1000, horizon) + lifetime
            writer.execute(
                "INSERT INTO groups VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " generation = excluded.generation, expires_at = max(expires_at, excluded.expires_at)",
                (group, generation, expires_at),
            )
            return int(generation)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        with self._writing() as writer:
            # In the same transaction: no row goes before the horizon tells that it may be gone.
            writer.execute("UPDATE marks SET horizon = max(horizon, ?)", (before,))
            bound = writer.execute(_PURGE_BOUND, (before, limit)).fetchone() or (before, "")
            deleted = writer.execute(_PURGE_TOKENS, bound).rowcount
            deleted += writer.execute(_PURGE_GROUPS, (before, limit - deleted)).rowcount
            return deleted

    def count(self) -> int:
        self.lookup("", 0, ())  # an open list, in this process
        # A connection of its own: it goes through the whole file, and look-ups must not wait for it.
        with self._translated(), closing(_connect(self._path, self._timeout)) as connection:
            self._check_identity()
            (rows,) = connection.execute(
                "SELECT (SELECT count(*) FROM tokens) + (SELECT count(*) FROM groups)"
            ).fetchone()
            return int(rows)

    def ping(self) -> None:
        self.lookup("", 0, ())  # an open list, in this process
        # A connection of its own: the check reads the whole file, and look-ups must not wait for it.
        with self._translated(), closing(_connect(self._path, self._timeout)) as connection:
            self._check_identity()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(f"The list {self._path} is damaged: restore it from a backup.")
            # A change in earnest: a full disk lets one begin, and a list of root's lets one read.
            if connection.execute("UPDATE marks SET changes = changes + 1").rowcount != 1:
                raise StoreError(f"The list {self._path} lost its marks: restore it from a backup.")
        self.lookup("", 0, ())

    def close(self) -> None:
        with self._read_lock, self._write_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._check_process()
        with self._read_lock, self._translated():
            self._check_identity()
            yield self._reader

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._check_process()
        with self._write_lock, self._translated():
            self._check_identity()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                (changes,) = self._writer.execute("SELECT changes FROM marks").fetchone()
                self._check_changes(changes, self._made)
                self._writer.execute("UPDATE marks SET changes = changes + 1")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
            # A file deleted during the commit took the change with it: that is no success.
            self._check_identity()
            self._made = changes + 1

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        # The last two: values in the file, or characters in its name, that are of no such kind.
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            raise StoreError(f"The list {self._path} cannot answer: {error}.") from error

    def _identify(self) -> tuple[tuple[int, int], ...]:
        found = map(os.stat, self._files)
        return tuple((status.st_dev, status.st_ino) for status in found)

    def _check_identity(self) -> None:
        if self._identify() != self._identity:
            raise StoreError(
                f"The list {self._path} was replaced while running: put the file back, or restart to"
                " accept the new one."
            )

    def _check_process(self) -> None:
        # Before any lock: another thread may have held it at the fork, and nobody is left to let go.
        if self._pid != os.getpid():
            raise StoreError("A list cannot be carried across fork(): close it before, open it after.")

    def _check_changes(self, changes: int, known: int) -> None:
        if changes < known:
            raise StoreError(
                f"The list {self._path} was overwritten with an older one while running: put the newer one"
                " back, or restart to accept it."
            )


def back_up(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the list at `path`, as it stands at this moment, to a new file `target`. It may be in use.

    Raises:
        StoreError: there is no list, it cannot be read, or the file is there already or cannot be made.
    """
    made = False
    try:
        with closing(_connect(Path(path), 5.0)) as connection:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            made = True
            connection.execute("VACUUM INTO ?", (os.fspath(target),))
        sync_file(Path(target))
        sync_directory(Path(target).absolute().parent)
    except (sqlite3.Error, OSError) as error:
        if made:
            Path(target).unlink()
        raise StoreError(f"The list {path} cannot be backed up to {target}: {error}.") from error


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    # mode=rw, never rwc: a missing file must not become an empty list, on which nothing is revoked.
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if (application_id, version) != (_APPLICATION_ID, _VERSION):
            raise StoreError(
                f"The file {path} is not a list this version can read (application id {application_id:#x},"
                f" version {version}): name another file in DATABASE_URL, or restore the list."
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    # Made whole under another name, then linked: of several starters one wins, and none sees half a list.
    if path.exists():
        return
    # In this order: another starter's side files come after its list, and then there is nothing to make.
    if any(Path(f"{path}{suffix}").exists() for suffix in _SUFFIXES) and not path.exists():
        raise StoreError(
            f"The list {path} is gone and its -wal or -shm is still there: put it back. To begin an empty"
            " one, on which nothing is revoked, remove those two."
        )
    if not path.parent.is_dir():
        raise StoreError(f"There is no folder {path.parent} for the list: make it first.")
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        with suppress(FileExistsError):
            os.link(draft, path)
            logger.warning("Made a new, empty list: %s", path)
        sync_directory(path.parent)
    finally:
        for suffix in _SUFFIXES:
            Path(f"{draft}{suffix}").unlink(missing_ok=True)
