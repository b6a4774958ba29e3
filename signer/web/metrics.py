"""Metrics for Prometheus, of this process or of all workers of the service.

Several workers write theirs into files in one folder, which whoever starts them makes and names in
PROMETHEUS_MULTIPROC_DIR before prometheus_client is imported; each worker can then answer for all. The files
belong to slots: a worker takes one that is free and goes on counting where the last one there ended, so that
they do not become more with every worker that dies.
"""

import fcntl
import os
import platform
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    values,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from .. import __version__
from ..errors import AuditError, ClockError, ConfigurationError, StoreError, SystemUnavailable
from ..events import BUG, OK, Event
from ..keys import KeyRing
from ..stores import Store

#: Names the folder that the workers share; prometheus_client reads it, too.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: Seconds. A validation takes less than a millisecond, a change a few, and both end after ten seconds.
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STORE_BUCKETS: Final = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.001, 0.005, 0.025, 0.1, 0.5, 5.0)


class Metrics:
    """All there is to count; a Hook.

    Args:
        folder: where several workers share theirs; None for one process alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # A time of birth for every counter would be a sixth of the page, and workers have none.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._folder = folder
        self._registry = registry = CollectorRegistry()
        if folder is None:
            # Whatever the environment said when prometheus_client was imported.
            values.ValueClass = values.MutexValue
            ProcessCollector(registry=registry)
        else:
            slot = _free_slot(folder)
            values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        self._requests = Counter(
            "signer_http_requests",
            "Requests by route template, method and status; 499 and 0 are callers that left.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._durations = Histogram(
            "signer_http_request_duration_seconds",
            "Time from request to the last byte of the answer.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._errors = Counter(
            "signer_errors", "Answers that are errors, by their code.", ["code"], registry=registry
        )
        self._events = Counter(
            "signer_events",
            "What happened to tokens and callers, its outcome, and the id of the token's key where one fits.",
            ["event", "outcome", "kid"],
            registry=registry,
        )
        self._rows = Counter("signer_purged_rows", "Rows of expired tokens deleted.", registry=registry)
        self._store = Histogram(
            "signer_store_duration_seconds",
            "Time the list took.",
            ["operation"],
            buckets=_STORE_BUCKETS,
            registry=registry,
        )
        self._waiting = Gauge(
            "signer_changes_waiting",
            "Changes that wait for the list, the one under way included.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def expect(self, keys: KeyRing) -> None:
        """Begin at 0 what alerts wait for: Prometheus sees no increase in a counter that is born at 1."""
        for kind in (StoreError, ClockError, AuditError):
            self._errors.labels(kind.code)
        self._errors.labels(BUG)
        self._events.labels("purge", OK, "")
        for kid in keys.by_id:
            for name in ("theft", "validate", "authenticate", "consume", "rotate", "verify_code"):
                self._events.labels(name, OK, kid)

    def before(self, event: Event) -> None:
        """Nothing: what has not happened is not counted."""

    def after(self, event: Event) -> None:
        """Count it."""
        self._events.labels(event.name, event.outcome, event.kid or "").inc()
        if event.rows:
            self._rows.inc(event.rows)

    def request(self, method: str, route: str, status: int, seconds: float, code: str) -> None:
        """Count a request that has been answered; `code` is that of its error, "" where it is none."""
        self._requests.labels(method, route, status).inc()
        self._durations.labels(method, route).observe(seconds)
        if code:
            self._errors.labels(code).inc()

    def store(self, operation: str, seconds: float) -> None:
        """Count a call on the list."""
        self._store.labels(operation).observe(seconds)

    def change_waits(self, more: int) -> None:
        """One more change waits (1), or one less (-1)."""
        self._waiting.inc(more)

    def collector(self) -> Collector:
        """All that was counted, by whichever worker."""
        return _Registered(self._registry) if self._folder is None else _Shared(self._folder)


class Page:
    """What Prometheus reads: what was counted, and what is so at this moment."""

    def __init__(self, metrics: Metrics, store: Store, keys: KeyRing) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(metrics.collector())
        self._registry.register(_State(store, keys))

    def __call__(self, accept: str) -> tuple[bytes, str]:
        """Its text and its media type, which the header `Accept` chooses. May be slow: it counts rows."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


class _State(Collector):
    # Asked of list and keys and kept nowhere, so that it cannot be out of date.

    def __init__(self, store: Store, keys: KeyRing) -> None:
        self._store = store
        self._keys = keys

    def collect(self) -> Iterable[Metric]:
        """The list's size, the keys and the version."""
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
            "Rows that expired before are purged, whoever did it; 0 where nobody ever did.",
            horizon,
        )


class _Registered(Collector):
    """Another registry's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._registry.collect()


class _Shared(Collector):
    """What all workers counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """All of it, but for gauges of workers that are no more."""
        for lock in self._folder.glob("*.lock"):
            descriptor = _taken(lock)
            if descriptor is not None:
                mark_process_dead(lock.stem, str(self._folder))  # type: ignore[no-untyped-call]
                os.close(descriptor)
        collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        return collector.collect()  # type: ignore[no-any-return, no-untyped-call]


def _free_slot(folder: Path) -> int:
    try:
        slot = next(slot for slot in count() if _taken(folder / f"{slot}.lock") is not None)
        mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ConfigurationError(f"{FOLDER_VARIABLE} names a folder that cannot be used: {error}.") from None
    return slot


def _taken(lock: Path) -> int | None:
    # The lock goes with the process, however it ends; the descriptor stays open until then.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
