"""The SQLite file of a list: its tables, and how it is made, opened, upgraded and backed up."""

import logging
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ...errors import StoreError
from ...files import make_whole, sync_directory, sync_file

logger = logging.getLogger(__name__)

#: "sgtl". It marks the file as a list, so that no other database is taken for an empty one.
_APPLICATION_ID: Final = 0x7367746C
_VERSION: Final = 5
#: The file, and SQLite's own beside it. If one is lost, old and new processes do not see each other's
#: changes.
SUFFIXES: Final = ("", "-wal", "-shm")
#: What the newest changes affected: a row, a group (which has a generation), or nothing (an empty name).
_LOG: Final = """
CREATE TABLE log (
    number INTEGER PRIMARY KEY,
    mark INTEGER NOT NULL,
    name TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    generation INTEGER NOT NULL
);
INSERT INTO log SELECT changes, mark, '', 0, 0 FROM state;
"""
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
CREATE TABLE state (
    generation INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    mark INTEGER NOT NULL
);
INSERT INTO state VALUES (0, 0, 0, 0);
{_LOG}
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""  # noqa: S608 - two integers of ours
#: From older versions. A renamed table, or one with more columns, stops processes that still run an older
#: version.
_UPGRADES: Final = {
    3: "ALTER TABLE marks RENAME TO state;",
    4: "DROP TABLE log;",
}
_UPGRADE: Final = f"""
BEGIN IMMEDIATE;
%s
ALTER TABLE state ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
{_LOG}
PRAGMA user_version = {_VERSION};
COMMIT;
"""


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection to the list at `path`. Its changes wait up to `timeout` seconds for those of other
    processes.

    Raises:
        StoreError: it is not a list, or one of a later version. sqlite3.Error: it cannot be opened.
    """
    # mode=rw, never rwc: a missing file must not become an empty list, in which nothing is revoked.
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        application_id, version = _marks(connection)
        if application_id == _APPLICATION_ID and version in _UPGRADES:
            _upgrade(connection, version)
            _, version = _marks(connection)
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


def create(path: Path) -> bool:
    """Make an empty list at `path` if there is none; return whether there was none.

    Raises:
        StoreError: parts are left of a list that was there; or there is no folder for it. sqlite3.Error,
            OSError.
    """
    if path.exists():
        return False
    # In this order: another process's side files come after its list, and then there is nothing to make.
    if any(Path(f"{path}{suffix}").exists() for suffix in SUFFIXES) and not path.exists():
        raise StoreError(
            f"The list {path} is gone and its -wal or -shm is still there: put it back. To begin an empty"
            " one, on which nothing is revoked, remove those two."
        )
    if not path.parent.is_dir():
        raise StoreError(f"There is no folder {path.parent} for the list: make it first.")
    # Whole at once: of several processes that start, one makes it, and none sees half a list.
    if make_whole(path, _fill, suffixes=SUFFIXES):
        logger.warning("Made a new, empty list: %s", path)
    sync_directory(path.parent)
    return True


def _fill(draft: Path) -> None:
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")


def back_up(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the list at `path`, as it is at this moment, to a new file `target`. The list may be in use.

    Raises:
        StoreError: there is no list, it cannot be read, or the target exists already or cannot be made.
    """
    made = False
    try:
        with closing(connect(Path(path), 5.0)) as connection:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            made = True
            connection.execute("VACUUM INTO ?", (os.fspath(target),))
        sync_file(Path(target))
        sync_directory(Path(target).absolute().parent)
    except (sqlite3.Error, OSError) as error:
        if made:
            Path(target).unlink()
        raise StoreError(f"The list {path} cannot be backed up to {target}: {error}.") from error


def _marks(connection: sqlite3.Connection) -> tuple[int, int]:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application_id, version


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    try:
        connection.executescript(_UPGRADE % _UPGRADES[version])
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if _marks(connection)[1] != _VERSION:  # if it is, another process was first
            raise
