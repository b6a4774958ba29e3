"""Timing in interleaved rounds, and what a measurement is."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

#: Returns one number: a time, a rate, a size.
Case = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """What one case gave: a number for each round, and their unit."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The number to speak of."""
        return median(self.values)

    @property
    def worst(self) -> float:
        """The highest, for what must not happen even once."""
        return max(self.values)

    def as_json(self) -> dict[str, Any]:
        """Median, spread and every value, for results.json."""
        return {
            "unit": self.unit,
            "median": round(self.median, 3),
            "low": round(min(self.values), 3),
            "high": round(max(self.values), 3),
            "values": [round(value, 3) for value in self.values],
        }


#: By name, such as "verify: PyJWT HS256"; targets.py compares them under these names.
Results = dict[str, Sample]


def once(unit: str, value: float) -> Sample:
    """A Sample of one value that was measured once, or counted."""
    return Sample(unit, (value,))


def interleaved(cases: Mapping[str, Case], rounds: int, unit: str) -> Results:
    """Run every case once a round and return its numbers. In turn, so that whatever slows the machine down
    for a while slows all of them."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            values[name].append(case())
    return {name: Sample(unit, tuple(found)) for name, found in values.items()}


def calls_with(call: Callable[[Any], object], arguments: Sequence[Any]) -> Case:
    """A case that calls `call` once with each argument, and returns the microseconds of one call."""

    def case() -> float:
        # What earlier cases left behind is not this one's to collect.
        gc.collect()
        started = perf_counter()
        for argument in arguments:
            call(argument)
        return (perf_counter() - started) * 1e6 / len(arguments)

    return case


def calls(call: Callable[[], object], times: int) -> Case:
    """The same for a call without arguments."""

    def case() -> float:
        gc.collect()
        started = perf_counter()
        for _ in range(times):
            call()
        return (perf_counter() - started) * 1e6 / times

    return case
