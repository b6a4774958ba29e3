"""Lists with a million rows, made in seconds."""

import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from signer import open_store

_DAY = 24 * 60 * 60


def fill_with_live(path: Path, rows: int) -> None:
    """Create a list at `path`, of revoked tokens that expire within the next month."""
    now = int(time.time())
    _fill(path, rows, now + _DAY, now + 30 * _DAY)


def fill_with_expired(path: Path, rows: int) -> None:
    """Create a list at `path`, of revoked tokens that have expired within the last month."""
    now = int(time.time())
    _fill(path, rows, now - 30 * _DAY, now - _DAY)


def _fill(path: Path, rows: int, first: int, last: int) -> None:
    # One durable commit for each row, as the library makes, would take minutes. The library writes one row;
    # all others copy its columns, whatever columns there are.
    with closing(open_store(f"sqlite:///{path}")) as store:
        if rows:
            store.revoke(secrets.token_urlsafe(16), first)
    if rows < 2:
        return
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        cursor = connection.execute("SELECT * FROM tokens")
        pattern = dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))
        step = (last - first) / rows
        connection.executemany(
            f"INSERT INTO tokens VALUES ({', '.join(f':{name}' for name in pattern)})",
            (
                {**pattern, "jti": secrets.token_urlsafe(16), "expires_at": first + int(step * number)}
                for number in range(1, rows)
            ),
        )
    # Otherwise the next process that changes the list would wait until all of this is on the disk.
    with path.open("rb") as file:
        os.fsync(file.fileno())
