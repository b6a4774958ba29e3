"""Measuring in interleaved rounds."""

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
    """The result of one case: a number for each round, and their unit."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The number to report."""
        return median(self.values)

    @property
    def worst(self) -> float:
        """The highest number, for what must never happen."""
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


#: By name, such as "verify: PyJWT HS256"; targets.py compares them by these names.
Results = dict[str, Sample]


def once(unit: str, value: float) -> Sample:
    """A Sample with one value, which was measured once or counted."""
    return Sample(unit, (value,))


def interleaved(cases: Mapping[str, Case], rounds: int, unit: str) -> Results:
    """Run every case once in each round, and return its numbers. In turn, so that a slow phase of the machine
    affects all cases."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            values[name].append(case())
    return {name: Sample(unit, tuple(found)) for name, found in values.items()}


def calls_with(call: Callable[[Any], object], arguments: Sequence[Any]) -> Case:
    """A case that calls `call` once with each argument, and returns the microseconds for one call."""

    def case() -> float:
        # Garbage of earlier cases must not be collected in this one.
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
