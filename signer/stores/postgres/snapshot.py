"""What one transaction on a list in PostgreSQL reads."""

from time import monotonic
from typing import Any, Final, NamedTuple

from ..contract import Changes, Chunk, Point, Row
from . import statements
from .link import Link
from .pool import Connection
from .statements import check_whole

_BEFORE_ALL: Final = (0, -(1 << 63), "")


class PostgresSnapshot(NamedTuple):
    """A contract.Snapshot."""

    link: Link
    connection: Connection
    horizon: int
    last_generation: int
    point: Point

    def chunk(self, start: Any, limit: int) -> Chunk:
        """Tokens by expiry, then groups by name: [0, expires_at, jti] and [1, 0, name]."""
        self._check_whole()
        kind, expires_at, name = start or _BEFORE_ALL
        rows: list[Row] = []
        if kind == 0:
            rows = self._rows(statements.TOKENS_AFTER, (expires_at, name.encode(), limit))
            if len(rows) == limit:
                return Chunk(rows, [0, rows[-1].expires_at, rows[-1].name])
            name = ""
        groups = self._rows(statements.GROUPS_AFTER, (name.encode(), limit - len(rows)))
        is_last = len(groups) < limit - len(rows)
        return Chunk([*rows, *groups], None if is_last else [1, 0, groups[-1].name])

    def changes(self, after: Point, limit: int) -> Changes | None:
        """By number."""
        self._check_whole()
        if self._fetched(statements.LOG_MARK, (after.number,)) != [(after.mark,)]:
            return None
        lines = self._fetched(statements.LOG_AFTER, (after.number, limit))
        with self.link.translated():  # an answer may be garbled on its way
            rows = dict.fromkeys(_row(line[2:]) for line in lines if line[3] is not None)
            return Changes(list(rows), Point(*lines[-1][:2]) if lines else after)

    def _check_whole(self) -> None:
        check_whole(self.link.name, is_whole=self._fetched(statements.IS_WHOLE, ()) == [(True,)])

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Row]:
        with self.link.translated():
            return [_row(found) for found in self._fetched(statement, values)]

    def _fetched(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self.link.translated():
            self.connection.deadline = monotonic() + self.link.timeout
            return self.connection.execute(statement, values).fetchall()


def _row(found: tuple[Any, ...]) -> Row:
    name, *rest = found
    return Row(name.decode(), *rest)
