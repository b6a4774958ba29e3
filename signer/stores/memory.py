"""A list in memory: for tests, and for a single process that may forget everything when it ends."""

import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from ..errors import StoreError
from ..policy import LOG_SIZE, PURGE_STEP
from .contract import Changes, Chunk, Entry, Point, Row
from .copies.index import NEVER, Index
from .direct import DirectView
from .forks import ForkGuard

_of_this_process: Final = WeakSet["MemoryStore"]()


class MemoryStore:
    """A Store that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[tuple[int, str], Entry] = {}
        self._groups: dict[str, tuple[int, int]] = {}
        #: One object for ever, because views keep its `is_clear`.
        self._index: Final = Index()
        self._generation = 0
        self._horizon = 0
        self._log = deque([_Line(Point(0, secrets.randbits(63)), "", 0)], maxlen=LOG_SIZE)
        self._closed = False
        self._guard = ForkGuard("a list in memory belongs to one process")
        _of_this_process.add(self)

    @property
    def view(self) -> DirectView:
        return DirectView(self.lookup, self._index.is_clear, is_local=True)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        self._check_open()
        with self._lock:
            return self._entry(jti, exp, groups)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        self._check_open()
        with self._lock:
            if exp >= self._horizon:
                entry = self._tokens.get((exp, jti), Entry())
                self._tokens[exp, jti] = entry._replace(revoked=True)
                self._changed(Row(jti, exp))
            return self._entry(jti, exp, groups)

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        self._check_open()
        with self._lock:
            entry = self._tokens.get((exp, jti), Entry())
            if entry.revoked or entry.rotated_at or entry.uses >= limit or exp < self._horizon:
                return None
            self._tokens[exp, jti] = entry._replace(uses=entry.uses + 1)
            self._changed(Row(jti, exp))
            return entry.uses + 1

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        self._check_open()
        with self._lock:
            entry = self._tokens.get((exp, jti), Entry())
            if entry.revoked or entry.uses or exp < self._horizon:
                return None
            rotated_at = entry.rotated_at or now
            self._tokens[exp, jti] = entry._replace(rotated_at=rotated_at)
            self._changed(Row(jti, exp))
            return rotated_at

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        self._check_open()
        with self._lock:
            self._generation = max(now_ms, self._generation + 1)
            expires_at = max(self._generation // 1000, self._horizon) + lifetime
            _, previous = self._groups.get(group, (0, 0))
            self._groups[group] = (self._generation, max(expires_at, previous))
            self._changed(Row(group, expires_at, self._generation))
            return self._generation

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        self._check_open()
        with self._lock:
            self._horizon = self._index.horizon = max(self._horizon, before)
            tokens = [key for key in self._tokens if key[0] < before][:limit]
            for key in tokens:
                del self._tokens[key]
            groups = [group for group, (_, expires_at) in self._groups.items() if expires_at < before]
            groups = groups[: limit - len(tokens)]
            for group in groups:
                del self._groups[group]
            deleted = len(tokens) + len(groups)
            self._note("", 0)
            if deleted < limit:
                self._index.replace(self._indexed())
            return deleted

    def together(self) -> None:
        return None

    @contextmanager
    def snapshot(self) -> Iterator["_Snapshot"]:
        self._check_open()
        with self._lock:
            point = self._log[-1].point
            yield _Snapshot(point, self._horizon, self._generation, self._rows(), [*self._log])

    def count(self) -> int:
        self._check_open()
        return len(self._tokens) + len(self._groups)

    def ping(self) -> None:
        self._check_open()

    def close(self) -> None:
        self._closed = True
        self.clear_nothing()

    def clear_nothing(self) -> None:
        """Send every validation to the list itself, which refuses it: the list is closed, or in a child."""
        self._index.horizon = NEVER

    def _indexed(self) -> Index:
        index = Index(self._horizon)
        for row in self._rows():
            index.add(row)
        return index

    def _entry(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        entry = self._tokens.get((exp, jti), Entry())
        generation = max((self._groups[group][0] for group in groups if group in self._groups), default=0)
        return entry._replace(generation=generation, horizon=self._horizon, last_generation=self._generation)

    def _changed(self, row: Row) -> None:
        self._index.add(row)
        self._note(row.name, 0 if row.generation else row.expires_at)

    def _note(self, name: str, exp: int) -> None:
        point = Point(self._log[-1].point.number + 1, secrets.randbits(63))
        self._log.append(_Line(point, name, exp))

    def _rows(self) -> list[Row]:
        tokens = [Row(jti, exp, 0, *entry[:3]) for (exp, jti), entry in self._tokens.items()]
        groups = [
            Row(name, expires_at, generation) for name, (generation, expires_at) in self._groups.items()
        ]
        return [*tokens, *groups]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("The list in memory was closed.")
        self._guard.check()


class _Line(NamedTuple):
    """One line of the log; that of a group has no `exp`."""

    point: Point
    name: str
    exp: int


class _Snapshot(NamedTuple):
    point: Point
    horizon: int
    last_generation: int
    rows: list[Row]
    lines: list[_Line]

    def chunk(self, start: Any, limit: int) -> Chunk:
        """Rows by expiry and name, after the row [expires_at, name]."""
        rest = sorted((row for row in self.rows if start is None or _place(row) > start), key=_place)
        return Chunk(rest[:limit], _place(rest[limit - 1]) if len(rest) > limit else None)

    def changes(self, after: Point, limit: int) -> Changes | None:
        """In the order in which they were made."""
        points = [line.point for line in self.lines]
        if after not in points:
            return None
        lines = self.lines[points.index(after) + 1 :][:limit]
        known = {(row.name, 0 if row.generation else row.expires_at): row for row in self.rows}
        rows = [known[line[1:]] for line in lines if line[1:] in known]
        return Changes(rows, lines[-1].point if lines else after)


def _place(row: Row) -> list[Any]:
    return [row.expires_at, row.name]


def _leave_behind() -> None:
    # A child would not hear of changes. To compare process ids in each is_clear would double its time.
    for store in list(_of_this_process):
        store.clear_nothing()


os.register_at_fork(after_in_child=_leave_behind)
