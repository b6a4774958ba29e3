"""The list on Redis or Valkey (7 or later), shared by many machines.

An acknowledged change is as durable as the server is configured: on its disk with appendfsync=always, and on
that many replicas with ?replicas=N. Rows are in one hash for each hour of expiry, which the engine deletes a
day after that hour. Each change is one script, and a replica refuses every script, even one that only reads.

A list that is empty, replaced or older than it was fails closed until the node is restarted, and so does one
that lost a key. The same holds if a failover loses a change that was not acknowledged, once a look-up has
seen it. A master that was cut off while another took its place cannot be recognised from here: set
min-replicas-to-write, so that it refuses to answer. While a cluster moves the list's slot to another node, no
call is answered.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from ...errors import StoreError
from ...policy import ENGINE_TIMEOUT, PURGE_STEP
from ..contract import Changes, Chunk, Entry, Point, Row, View
from ..copies.view import view_of
from ..forks import ForkGuard
from ..newest import NOTHING, Moment, Newest
from . import scripts
from .link import Link
from .scripts import AGES, BUCKET, BUCKETS, CHANNEL, GROUPS, LOG, ROWS, STATE, Script

logger = logging.getLogger(__name__)

#: The most buckets that one chunk goes through.
_SPAN: Final = 64
_LIMIT: Final = 1 << 53
#: Where a chunk finds the groups: after all buckets.
_LAST: Final = 1 << 53
#: A reply that takes this many times the time-out came to a process that was stopped meanwhile.
_TOO_LATE: Final = 4
_KEYS: Final = (STATE, LOG, BUCKETS, GROUPS, AGES)
_TOO_OLD: Final = frozenset("23456")
_MISSED: Final = frozenset({"REPLACED", "OLDER"})
_REFUSALS: Final = {
    "GONE": "The list at {} is gone: restore it, or confirm an empty one, on which nothing is revoked, with"
    " python -m signer create-list.",
    "VERSION": "The list at {} is of another version: name another database in DATABASE_URL, or restore it.",
    "DAMAGED": "The list at {} is damaged: restore it from a backup.",
    "REPLACED": "The list at {} was replaced while running: put the other one back, or restart to accept it.",
    "OLDER": "The list at {} went back to an older state, as after a failover to a replica that lagged or a"
    " restore: changes are lost. Put the newer one back, or restart to accept this one.",
    "LOST": "The list at {} lost a part, as where a key was deleted or evicted: revoked tokens would be good."
    " Restore it from a backup.",
    "PARTS": "Of the list at {} parts are left, and its state is gone: restore it, or delete the keys"
    " {{signer}}:* before you make an empty one.",
}


class RedisStore:
    """A Store at a Redis server, behind sentinels or in a cluster.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `redis+sentinel://host,host/service`, `redis+cluster://host`.
        create: make an empty list if there is none; False if a missing list means a lost one.
        timeout: seconds after which a call is given up.
        newest: the newest moment of the list that was seen; None: by this process. Closed with the store.
        staleness: keep a copy for validations that is fresher than that many seconds; None: keep none.

    Raises:
        ConfigurationError: the URL has another form.
        StoreError: the server does not answer, is a replica, is too old, may evict keys, or has no list.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = False,
        timeout: float = ENGINE_TIMEOUT,
        newest: Newest | None = None,
        staleness: float | None = None,
    ) -> None:
        self._guard = ForkGuard()
        self._timeout = timeout
        self._newest = newest or Newest()
        self._ear_lock = threading.Lock()
        self._ear: Any = None
        self._closed = threading.Event()
        self._id = ""
        #: Whether this made the list, because there was none.
        self.is_new = False
        self._link = Link(url, timeout)
        try:
            self._check_server(self._link.info())
            if create:
                self._create()
            self._upgrade()
            self._id, *_ = self._run(scripts.BEGIN)
            self._run(scripts.BEGIN)  # again, because what is seen of a list is noted under its name
            self._view = view_of(self, staleness, self._let_go)
        except BaseException:
            self._let_go()
            raise
        logger.info("Opened the list at %s", self._link.where)

    @property
    def view(self) -> View:
        return self._view

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        key, field = _place(jti, exp)
        return self._entry_of(self._run(scripts.LOOKUP, (key,), field, *groups))

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        key, field = _place(jti, exp)
        return self._entry_of(self._run(scripts.REVOKE, (key,), field, exp, *groups))

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        key, field = _place(jti, exp)
        (uses,) = self._run(scripts.USE, (key,), field, exp, limit)
        return None if uses is None else self._number(uses)

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        key, field = _place(jti, exp)
        (rotated_at,) = self._run(scripts.ROTATE, (key,), field, exp, now)
        return None if rotated_at is None else self._number(rotated_at)

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        (generation,) = self._run(scripts.ADVANCE, (), group, now_ms, lifetime)
        return self._number(generation)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        (buckets,) = self._run(scripts.PURGE, (), before)
        deleted = 0
        for bucket in buckets:
            cursor = ""
            while deleted < limit and cursor != "0":
                found = self._run(
                    scripts.PURGE_ROWS, (ROWS + bucket,), before, limit - deleted, cursor or "0"
                )
                cursor, deleted = found[0], deleted + found[1]
        if deleted < limit:
            deleted += self._run(scripts.PURGE_GROUPS, (), before, limit - deleted)[0]
        return deleted

    def together(self) -> None:
        return None

    @contextmanager
    def snapshot(self) -> Iterator["_Snapshot"]:
        with self._link.translated():
            _, number, mark, *numbers = self._run(scripts.BEGIN)
            point = Point(int(number), int(mark))
            horizon, last_generation = map(int, numbers)
        yield _Snapshot(self._link, self._run, point, horizon, last_generation)

    def count(self) -> int:
        (buckets,) = self._run(scripts.LIST)
        keys = [*(ROWS + bucket for bucket in buckets), GROUPS]
        return sum(
            self._run(scripts.COUNT, keys[start : start + 1000])[0] for start in range(0, len(keys), 1000)
        )

    def ping(self) -> None:
        self._check()
        self._check_memory(self._link.info())
        self._run(scripts.PING)

    def wait_for_change(self, seconds: float) -> None:
        """Return when a process changed the list, and after `seconds` at the latest. It returns at once when
        it has just begun to listen, because changes may have been missed. If it cannot listen, it waits for
        that time.

        Raises:
            StoreError: the list is closed.
        """
        self._check()
        until = monotonic() + seconds
        if self._ear_lock.acquire(timeout=max(0.0, seconds)):
            try:
                self._hear(until)
            except StoreError:
                self._stop_listening()
                self._closed.wait(max(0.0, until - monotonic()))
            finally:
                self._ear_lock.release()
        self._check()

    def _hear(self, until: float) -> None:
        with self._link.translated():
            ear = self._ear = self._ear or self._link.listen(CHANNEL)
            while (left := until - monotonic()) > 0 and not self._closed.is_set():
                if ear.get_message(timeout=min(left, 0.5)):
                    break
            # All other messages that have arrived count as the same change.
            for _ in range(PURGE_STEP):
                if not ear.get_message(timeout=0):
                    break

    def _stop_listening(self) -> None:
        ear, self._ear = self._ear, None
        if ear:
            ear.close()

    def close(self) -> None:
        self._view.close()

    def _let_go(self) -> None:
        if not self._guard.is_child:
            self._closed.set()
            self._link.close()
            self._newest.close()

    def _check(self) -> None:
        self._guard.check()
        if self._closed.is_set():
            raise StoreError(f"The list at {self._link.where} was closed.")

    def _run(self, script: Script, keys: Sequence[str] = (), *arguments: str | int) -> list[Any]:
        """What a script found, if the list is the one that it was."""
        self._check()
        seen, started = self._newest.get(), monotonic()
        with self._link.translated():
            if any(isinstance(value, int) and abs(value) >= _LIMIT for value in arguments):
                raise ValueError("a number is too large")
            known = (seen.name, seen.number, seen.mark, int(seen.is_missed), secrets.randbits(53))
            reply = self._link.run(script, (*_KEYS, *keys), (*known, *arguments))
            if monotonic() - started > _TOO_LATE * self._timeout:
                raise TimeoutError("it was too late")  # the reply may be long out of date
            number, mark, *found = self._accepted(reply, seen)
            if self._id:
                self._newest.see(Moment(int(number), int(mark), self._id))
            return found

    def _number(self, found: Any) -> int:
        with self._link.translated():
            return int(found)

    def _entry_of(self, found: list[Any]) -> Entry:
        # A value that is no number, as in a garbled reply, must not mean "not revoked".
        with self._link.translated():
            revoked, *numbers = map(int, found)
            return Entry(bool(revoked), *numbers)

    def _accepted(self, reply: list[Any], seen: Moment = NOTHING) -> list[Any]:
        refusal, *found = reply
        if refusal in _MISSED:
            self._newest.miss(seen)
        if refusal:
            raise StoreError(_REFUSALS[refusal].format(self._link.where))
        return found

    def _create(self) -> None:
        new = secrets.token_hex(16), secrets.randbits(53)
        with self._link.translated():
            self.is_new = bool(self._accepted(self._link.run(scripts.CREATE, _KEYS, new))[0])

    def _upgrade(self) -> None:
        with self._link.translated():
            self._accepted(self._link.run(scripts.UPGRADE, _KEYS, ()))

    def _check_server(self, info: dict[str, Any]) -> None:
        where = self._link.where
        version = str(info.get("redis_version", "7"))
        if version.partition(".")[0] in _TOO_OLD:
            raise StoreError(f"The server of the list at {where} is Redis {version}: it must be 7 or later.")
        if info.get("role", "master") != "master":
            raise StoreError(f"The server at {where} is a replica, and may lag: name the master.")
        self._check_memory(info)
        if info.get("aof_enabled") == 0:
            logger.warning(
                "The server of the list at %s has appendonly no: what was acknowledged since its latest dump,"
                " if it makes any, does not survive a restart of it.",
                where,
            )

    def _check_memory(self, info: dict[str, Any]) -> None:
        where, policy = self._link.where, info.get("maxmemory_policy")
        if policy is None:
            logger.warning("Whether the server of the list at %s evicts keys is unknown: it must not.", where)
        elif policy != "noeviction" and info.get("maxmemory", 1):
            raise StoreError(
                f"The server at {where} has maxmemory-policy {policy}: where memory is short it forgets"
                " revocations, and tokens that were revoked are valid again. Set maxmemory-policy noeviction."
            )


class _Snapshot:
    """Reads in several steps, each of which sees the list as it is then. Changes after `point` are in the
    log."""

    def __init__(
        self, link: Link, run: Callable[..., list[Any]], point: Point, horizon: int, last_generation: int
    ) -> None:
        self._link = link
        self._run = run
        self.point = point
        self.horizon = horizon
        self.last_generation = last_generation

    def chunk(self, start: Any, limit: int) -> Chunk:
        """By bucket, then groups, from [run of the server, bucket, cursor] on."""
        run, first, cursor = start or ("", 0, "0")
        # A reader of the feed may send any shape, and a reply may be garbled.
        if not (
            isinstance(run, str) and isinstance(first, int) and isinstance(cursor, str) and first <= _LAST
        ):
            raise ValueError
        with self._link.translated():
            return self._page(run, first, cursor, limit)

    def changes(self, after: Point, limit: int) -> Changes | None:
        """By number."""
        if max(map(abs, after)) >= _LIMIT:
            return None  # a moment of another engine's list
        with self._link.translated():
            return self._changes(after, limit)

    def _page(self, run: str, first: int, cursor: str, limit: int) -> Chunk:
        (buckets,) = self._run(scripts.LIST)
        places = [place for place in (*map(int, buckets), _LAST) if place >= first]
        if places[0] != first:
            run = ""  # the bucket was purged meanwhile, and the cursor does not belong to the next one
        keys = [GROUPS if place == _LAST else f"{ROWS}{place}" for place in places[:_SPAN]]
        horizon, run, done, cursor, found = self._run(scripts.PAGE, keys, limit, run, cursor)
        # A row that could not be read, because its bucket is gone, expired before this horizon.
        self.horizon = max(self.horizon, horizon)
        rows = [_row(name, value) for name, value in zip(found[::2], found[1::2], strict=True)]
        return Chunk(rows, [run, places[done], cursor] if done < len(places) else None)

    def _changes(self, after: Point, limit: int) -> Changes | None:
        (entries,) = self._run(scripts.CHANGES, (), *after, limit)
        if entries is None:
            return None
        found = [_entry(entry) for entry in entries]
        # Each once, in the order of their first changes.
        names = {name: _key(name, generation) for _, name, generation in found if name}
        return Changes(self._read(names) if names else [], found[-1][0] if found else after)

    def _read(self, names: dict[str, str]) -> list[Row]:
        keys = list(dict.fromkeys(names.values()))
        asked = [part for name, key in names.items() for part in (keys.index(key), name)]
        horizon, values = self._run(scripts.READ, keys, *asked)
        self.horizon = max(self.horizon, horizon)
        return [_row(name, value) for name, value in zip(names, values, strict=True) if value is not None]


def _place(jti: str, exp: int) -> tuple[str, str]:
    field = f"{exp}/{jti}"
    return _key(field, 0), field


def _key(name: str, generation: int) -> str:
    return GROUPS if generation else f"{ROWS}{int(name.partition('/')[0]) // BUCKET}"


def _row(name: str, value: str) -> Row:
    match [int(number) for number in value.split(" ")]:
        case [generation, expires_at]:
            return Row(name, expires_at, generation)
        case [revoked, uses, rotated_at]:
            exp, _, jti = name.partition("/")
            return Row(jti, int(exp), 0, bool(revoked), uses, rotated_at)
    raise StoreError("A row of the list is damaged: restore it from a backup.")


def _entry(entry: Any) -> tuple[Point, str, int]:
    number, (_, mark, _, name, _, generation) = entry
    return Point(int(number.partition("-")[0]), int(mark)), name, int(generation)
