"""Metrics for Prometheus, of this process, or of all workers of a service, which share a folder for them."""

import platform
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ... import __version__
from ...errors import AuditError, ClockError, ConfigurationError, StoreError, SystemUnavailable
from ...events import BUG, OK
from ...stores import Store
from ...tokens.keys import KeyRing
from .cells import NOW, Cells, NumberName

#: The environment variable that names the folder which the workers share. The process that starts them makes
#: the folder.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: A part of the header `Accept` that asks for a version which the formats do not have.
_UNKNOWN: Final = re.compile(r";\s*version=(?!(?:0\.0\.1|0\.0\.4|1\.0\.0)\s*(?:;|$))")


class _Counter(Struct, frozen=True):
    name: str
    about: str
    labels: tuple[str, ...] = ()

    def family(self, numbers: dict[NumberName, float]) -> Metric:
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for name, number in numbers.items():
            if name[0] == self.name:
                family.add_metric(name[1:], number)
        return family


class _Histogram(Struct, frozen=True):
    name: str
    about: str
    labels: tuple[str, ...]
    #: The upper bounds, in seconds.
    buckets: tuple[float, ...]

    def names(self, labels: NumberName) -> list[NumberName]:
        """The names of the sum, and of each bucket after it."""
        return [(self.name, *labels, str(place)) for place in range(len(self.buckets) + 2)]

    def family(self, numbers: dict[NumberName, float]) -> Metric:
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        ends = [*map(str, self.buckets), "+Inf"]
        for labels in {name[1:-1] for name in numbers if name[0] == self.name}:
            total, *counts = (numbers.get(name, 0.0) for name in self.names(labels))
            buckets = list(zip(ends, accumulate(counts), strict=True))
            family.add_metric(labels, buckets, sum_value=total)
        return family


_REQUESTS: Final = _Counter(
    "signer_http_requests",
    "Requests by route template, method and status; 499 and 0 are callers that left.",
    ("method", "route", "status"),
)
_DURATIONS: Final = _Histogram(
    "signer_http_request_duration_seconds",
    "Time from request to the last byte of the answer.",
    ("method", "route"),
    # A validation takes less than a millisecond, a change a few; neither takes longer than ten seconds.
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_ERRORS: Final = _Counter("signer_errors", "Answers that are errors, by their code.", ("code",))
_EVENTS: Final = _Counter(
    "signer_events",
    "What happened to tokens and callers, its outcome, and the id of the token's key if there is one.",
    ("event", "outcome", "kid"),
)
_ROWS: Final = _Counter("signer_purged_rows", "Rows of expired tokens deleted.")
_STORE: Final = _Histogram(
    "signer_store_duration_seconds",
    "Time that the revocation list took. Few validations ask it: most are answered by an index in memory.",
    ("operation",),
    (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.001, 0.005, 0.025, 0.1, 0.5, 5.0),
)
_WAITING: Final[NumberName] = (NOW, "signer_changes_waiting")


class Metrics:
    """Counts everything that the metrics show. It is an events.CountingHook.

    Args:
        folder: the folder that several workers share; None for one process alone.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            self._cells = Cells(folder)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{FOLDER_VARIABLE} names a folder that cannot be used: {error}."
            ) from None
        self._is_shared = folder is not None
        self._lock = threading.Lock()
        self._waiting = self._cells.place(_WAITING)
        self._rows = self._cells.place((_ROWS.name,))
        #: For each kind of request: the places of the count, of the durations, and of the error.
        self._places: dict[tuple[str, str, int, str], tuple[int, int, int]] = {}
        self._event_places: dict[tuple[str, str, str | None], int] = {}
        self._store_places: dict[str, int] = {}

    def expect(self, keys: KeyRing) -> None:
        """Create the counters that alerts watch: Prometheus sees no increase if one starts at 1, not at 0."""
        for kind in (StoreError, ClockError, AuditError):
            self._cells.place((_ERRORS.name, kind.code))
        self._cells.place((_ERRORS.name, BUG))
        self._cells.place((_EVENTS.name, "purge", OK, ""))
        for kid in keys.by_id:
            for name in ("theft", "validate", "authenticate", "consume", "rotate", "verify_code"):
                self._cells.place((_EVENTS.name, name, OK, kid))

    def count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
        """Count what happened; see events.CountingHook."""
        place = self._event_places.get((name, outcome, kid))
        if place is None:
            place = self._event_place(name, outcome, kid)
        with self._lock:  # look-ups may run in several threads
            self._cells.values[place] += times
            if rows:
                self._cells.values[self._rows] += rows

    def request(self, method: str, route: str, status: int, seconds: float, code: str) -> None:
        """Count a request that was answered after so many seconds. `code` is that of an error, or ""."""
        key = (method, route, status, code)
        count, durations, error = self._places.get(key) or self._placed(*key)
        values = self._cells.values
        values[count] += 1
        values[durations] += seconds
        values[durations + 1 + bisect_left(_DURATIONS.buckets, seconds)] += 1
        if code:
            values[error] += 1

    def store(self, operation: str, seconds: float) -> None:
        """Count a call to the revocation list that took so many seconds."""
        with self._lock:
            place = self._store_places.get(operation)
            if place is None:
                place = self._store_places[operation] = self._cells.place(*_STORE.names((operation,)))
            self._cells.values[place] += seconds
            self._cells.values[place + 1 + bisect_left(_STORE.buckets, seconds)] += 1

    def change_waits(self, more: int) -> None:
        """So many more changes are waiting; a negative number means fewer."""
        self._cells.values[self._waiting] += more

    def collectors(self) -> list[Collector]:
        """The collectors of what was counted, by all workers."""
        return (
            [_Counted(self._cells)]
            if self._is_shared
            else [_Counted(self._cells), ProcessCollector(registry=None)]
        )

    def _event_place(self, name: str, outcome: str, kid: str | None) -> int:
        with self._lock:
            place = self._cells.place((_EVENTS.name, name, outcome, kid or ""))
        self._event_places[name, outcome, kid] = place
        return place

    def _placed(self, method: str, route: str, status: int, code: str) -> tuple[int, int, int]:
        with self._lock:
            places = (
                self._cells.place((_REQUESTS.name, method, route, str(status))),
                self._cells.place(*_DURATIONS.names((method, route))),
                self._cells.place((_ERRORS.name, code)) if code else 0,
            )
        self._places[method, route, status, code] = places
        return places


class _Counted(Collector):
    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def collect(self) -> Iterable[Metric]:
        """The metrics that are counted."""
        numbers = self._cells.read()
        for kind in (_REQUESTS, _DURATIONS, _ERRORS, _EVENTS, _ROWS, _STORE):
            yield kind.family(numbers)
        waiting = "Changes that wait for the revocation list, or are being made."
        yield GaugeMetricFamily(_WAITING[1], waiting, numbers.get(_WAITING, 0.0))


class Exposition:
    """The text that Prometheus reads: what was counted, and the present state."""

    def __init__(self, metrics: Metrics, store: Store, keys: KeyRing) -> None:
        self._registry = CollectorRegistry()
        for collector in metrics.collectors():
            self._registry.register(collector)
        self._registry.register(_State(store, keys))

    def __call__(self, accept: str) -> tuple[bytes, str]:
        """The text and its media type, for this header `Accept`. It may take long, because it counts rows.

        choose_encoder fails if a version is no number, and copies any other one into the answer's header.
        """
        known = [part for part in accept.split(",") if not _UNKNOWN.search(part)]
        encode, media_type = choose_encoder(",".join(known))
        return encode(self._registry), media_type


class _State(Collector):
    # The list and the keys are asked each time, so that nothing is out of date.

    def __init__(self, store: Store, keys: KeyRing) -> None:
        self._store = store
        self._keys = keys

    def collect(self) -> Iterable[Metric]:
        """The size of the list, the keys, and the version."""
        yield from self._list()
        keys = GaugeMetricFamily("signer_key_info", "Keys: the current one signs.", labels=["kid", "role"])
        for kid in self._keys.by_id:
            keys.add_metric([kid, "current" if kid == self._keys.current.id else "fallback"], 1)
        yield keys
        build = GaugeMetricFamily("signer_build_info", "What runs.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build

    def _list(self) -> Iterator[Metric]:
        try:
            rows = self._store.count()
            horizon = self._store.lookup("", 0, ()).horizon
        except SystemUnavailable:
            yield GaugeMetricFamily("signer_store_up", "Whether the list answers.", 0)
            return
        yield GaugeMetricFamily("signer_store_up", "Whether the list answers.", 1)
        yield GaugeMetricFamily("signer_store_rows", "Rows in the list.", rows)
        yield GaugeMetricFamily(
            "signer_store_horizon_timestamp_seconds",
            "Rows that expired before this time were purged; 0 if there was never a purge.",
            horizon,
        )
        if freshness := self._store.view.freshness:
            yield GaugeMetricFamily(
                "signer_store_copy_age_seconds",
                "Seconds since this worker's copy of the revocation list was up to date.",
                freshness.age,
            )
            yield GaugeMetricFamily(
                "signer_store_copy_lag_seconds",
                "Seconds after which the copy had the last changes of the list.",
                freshness.lag,
            )
