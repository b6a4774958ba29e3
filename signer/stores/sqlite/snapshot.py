"""What one transaction on a list in SQLite reads."""

import sqlite3
from typing import Any, NamedTuple

from ..contract import Changes, Chunk, Point, Row
from .statements import COUNT_UP_TO, GROUPS_AFTER, LOG_AFTER, STATE, TOKENS_AFTER


class SQLiteSnapshot(NamedTuple):
    """A contract.Snapshot."""

    reader: sqlite3.Connection
    point: Point
    horizon: int
    last_generation: int

    @classmethod
    def of(cls, reader: sqlite3.Connection) -> "SQLiteSnapshot":
        """What this connection reads in its transaction, which has begun."""
        changes, mark, horizon, generation = map(int, reader.execute(STATE).fetchone())
        return cls(reader, Point(changes, mark), horizon, generation)

    def chunk(self, start: Any, limit: int) -> Chunk:
        """Tokens by expiry, then groups by name, after [0, expires_at, jti] or [1, 0, name]."""
        kind, expires_at, name = start or (0, -1, "")
        found: list[Row] = []
        if kind == 0:
            found = [_row(*row) for row in self.reader.execute(TOKENS_AFTER, (expires_at, name, limit))]
            if len(found) == limit:
                return Chunk(found, [0, found[-1].expires_at, found[-1].name])
            name = ""
        found += [_row(*row) for row in self.reader.execute(GROUPS_AFTER, (name, limit - len(found)))]
        return Chunk(found, [1, 0, found[-1].name] if len(found) == limit else None)

    def is_longer_than(self, limit: int) -> bool:
        """Whether there are more rows and groups than that."""
        (count,) = self.reader.execute(COUNT_UP_TO, (limit + 1,)).fetchone()
        return bool(count > limit)

    def changes(self, after: Point, limit: int) -> Changes | None:
        """By number."""
        if after == self.point:
            return Changes([], self.point)
        lines = self.reader.execute(LOG_AFTER, (after.number - 1, limit + 1)).fetchall()
        if not lines or lines[0][:2] != after:
            return None
        end = Point(*lines[-1][:2])
        if len(lines) <= limit and end != self.point:
            return None  # another program wrote to the log
        return Changes([_row(*line[2:]) for line in lines[1:] if line[3] is not None], end)


def _row(name: str, expires_at: int, generation: int, *entry: int | None) -> Row:
    revoked, uses, rotated_at = entry or (0, 0, 0)
    return Row(name, expires_at, generation, bool(revoked), uses or 0, rotated_at or 0)
