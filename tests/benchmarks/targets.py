"""The targets, and whether they were reached: the rows of the table."""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.durable import CONTESTED, WORKERS
from benchmarks.engines import BOUNDS, ENGINES
from benchmarks.measuring import Results, Sample
from benchmarks.peers import PYJWT, RUST, SIGNER, STOCK

#: For what must not get slower: the p99 of validations during a purge, divided by that before it.
UNMOVED = 1.25


@dataclass(frozen=True)
class Row:
    """One line of the table, as text. `met` is None if there is no target, and the number is only
    information."""

    what: str
    measured: str
    peer: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None


#: The rows of one part of the table. Raises KeyError if its numbers were not measured.
_Part = Callable[[Results], Iterator[Row]]


def table(found: Results) -> list[Row]:
    """The rows for all that was measured."""
    rows: list[Row] = []
    for part in _PARTS:
        try:
            rows += part(found)
        except KeyError:
            continue
    return rows


def fastest_rust(found: Results) -> str:
    """The name of the Rust-backed peer that verified fastest.

    Raises:
        KeyError: none was measured.
    """
    names = [name for name in RUST if f"verify: {name}" in found]
    if not names:
        raise KeyError("no Rust-backed peer")
    return min(names, key=lambda name: found[f"verify: {name}"].median)


def _faster(what: str, of: str, peer: str, least: float) -> _Part:
    """A part of one row: how many times faster our time is than the peer's."""

    def part(found: Results) -> Iterator[Row]:
        ratio = found[peer].median / found[of].median
        yield Row(
            what,
            _text(found[of]),
            f"{_text(found[peer])}, {peer.partition(': ')[2]}",
            f"{ratio:.2f}x",
            f"at least {least:g}x",
            ratio >= least,
        )

    return part


def _against_rust(found: Results) -> Iterator[Row]:
    rust = fastest_rust(found)
    yield from _faster("validate, by the fastest JWT in Rust", f"verify: {SIGNER}", f"verify: {rust}", 0.7)(
        found
    )
    issue = f"issue: {rust}"
    ratio = found[issue].median / found[f"issue: {SIGNER}"].median
    yield Row(
        "issue, by the same",
        _text(found[f"issue: {SIGNER}"]),
        f"{_text(found[issue])}, {rust}",
        f"{ratio:.2f}x",
    )


def _slower(what: str, of: str, peer: str, most: float) -> _Part:
    """A part of one row: our time divided by another, and the most that this may be."""

    def part(found: Results) -> Iterator[Row]:
        ratio = found[of].median / found[peer].median
        yield Row(
            what, _text(found[of]), _text(found[peer]), f"{ratio:.2f}x", f"at most {most:g}x", ratio <= most
        )

    return part


def _rate(what: str, of: str, peer: str, least: float | None, *, times: bool = False) -> _Part:
    """A part of one row: our rate divided by another, in percent or as a factor."""

    def part(found: Results) -> Iterator[Row]:
        ratio = found[of].median / found[peer].median
        yield Row(
            what,
            _text(found[of]),
            f"{_text(found[peer])}, {peer.partition(': ')[2] or peer}",
            f"{ratio:.2f}x" if times else f"{ratio:.0%}",
            "" if least is None else f"at least {f'{least:g}x' if times else f'{least:.0%}'}",
            None if least is None else ratio >= least,
        )

    return part


def _bound(what: str, of: str, bound: float, *, is_least: bool = False, by_worst: bool = False) -> _Part:
    """A part of one row: a number that must not exceed a bound, in its median or in any round."""
    keeps = operator.ge if is_least else operator.le

    def part(found: Results) -> Iterator[Row]:
        sample = found[of]
        many = len(sample.values) > 1
        shown = (
            f"{_text(sample)}, at the most {_number(sample.worst)}" if by_worst and many else _text(sample)
        )
        target = f"{'at least' if is_least else 'at most'} {_number(bound)} {sample.unit}"
        yield Row(what, shown, target=target, met=keeps(sample.worst if by_worst else sample.median, bound))

    return part


def _shares(found: Results) -> Iterator[Row]:
    prefix = "share of a list of "
    names = [name for name in found if name.startswith(prefix)]
    for name in names:
        yield from _bound(f"the list's share, {name.removeprefix(prefix)} rows", name, 0.2)(found)


def _visibility(found: Results) -> Iterator[Row]:
    asked, stale = (found[f"visibility: {name}"] for name in ("answers after a revocation", "of these stale"))
    yield Row(
        "stale answers after a revocation, 2 workers under load",
        f"{stale.median:.0f} of {asked.median:.0f}",
        target="none",
        met=stale.median == 0,
    )


def _exactly_once(found: Results) -> Iterator[Row]:
    granted = found[f"uses granted of {CONTESTED}, {WORKERS} workers"].median
    yield Row(
        f"uses granted of {CONTESTED} tokens, {WORKERS} processes",
        f"{granted:.0f}",
        target="each once",
        met=granted == CONTESTED,
    )


def _engines(found: Results) -> Iterator[Row]:
    for engine in ENGINES:
        for bound in BOUNDS:
            name = f"{engine}, bound {bound} s"
            delay = found[f"{name}: until all refuse"]
            yield Row(
                f"{name}: from an acknowledgement to the other service's no",
                f"{_text(delay)}, at the most {_number(delay.worst)}",
                target=f"at most {bound * 1000:,} ms" if bound else "",
                met=delay.worst <= bound * 1000 if bound else None,
            )
            for route in ("GET /app/valid", "POST /app/revoke"):
                yield Row(f"{name}: {route}", _text(found[f"{name}: {route}"]))


def _unmoved(found: Results) -> Iterator[Row]:
    before, during = (found[f"purge: validation p99 {when}"] for when in ("before", "during"))
    ratio = during.median / before.median
    rows = found["purge: rows"].median
    yield Row(
        f"purge of {rows:,.0f} rows, validation p99",
        _text(during),
        f"{_text(before)}, before it",
        f"{ratio:.2f}x",
        f"not moved (at most {UNMOVED:g}x)",
        ratio <= UNMOVED,
    )
    yield from _bound("the same, slowest writer", "purge: slowest writer during", 10)(found)
    slowest = found["purge: slowest writer before"]
    yield Row("slowest writer without a purge", _text(slowest))
    yield from _bound("the same purge, WAL at the most", "purge: WAL at the most", 20)(found)
    yield Row("the same purge, time", _text(found["purge: time"]))


def _memory(found: Results) -> Iterator[Row]:
    rows = found["memory: rows"].median
    for name, what, bound in (("idle", "idle", 60), ("full", f"with {rows:,.0f} rows", 200)):
        yield from _bound(f"memory of a worker, {what} (RSS)", f"memory: {name}, RSS", bound)(found)
        yield Row("the same, its share of shared pages counted (PSS)", _text(found[f"memory: {name}, PSS"]))


def _notes(found: Results) -> Iterator[Row]:
    if found["both off, metrics still counting"].median:
        yield Row("note: in “both off”, the metrics could not be turned off", "")
    size = found["POST /app/valid, tokens in a request"].median
    yield Row("tokens in a request of batch validation", f"{size:,.0f}")


#: Every percentage and factor compares with this one, which has one worker.
_CONSTANT: str = "GET /app/valid: Starlette constant"
_VALID: str = "GET /app/valid"
_BARE: str = f"{_VALID}: bare ASGI constant"
_ISSUE: str = "POST /app/token"
_PARTS: Sequence[_Part] = (
    _faster("validate, by stock loads", f"verify: {SIGNER}", f"verify: {STOCK}", 3.5),
    _faster("validate, by PyJWT decode", f"verify: {SIGNER}", f"verify: {PYJWT}", 9),
    _against_rust,
    _faster("issue, by stock dumps", f"issue: {SIGNER}", f"issue: {STOCK}", 4),
    _faster("issue, by PyJWT encode", f"issue: {SIGNER}", f"issue: {PYJWT}", 5),
    _slower(
        "validate, oldest of 10 keys by one key",
        "verify: signer, the oldest of 10 keys",
        "verify: signer, its one key",
        1.1,
    ),
    _slower(
        "forged token refused, by a good one accepted", "refuse a forged token: signer", "accept: signer", 1
    ),
    _bound("cyclic garbage of 1,000 forged tokens", "garbage of 1000 forged tokens: signer", 0),
    _shares,
    _visibility,
    _rate(f"{_VALID}, log and metrics on", f"{_VALID}: signer", _CONSTANT, 1),
    _rate(f"{_VALID}, both off", f"{_VALID}: signer, both off", _CONSTANT, 1.3),
    _rate(f"{_VALID}, on", f"{_VALID}: signer", f"{_CONSTANT}, our protocol", None),
    _rate(f"{_VALID}, on, 2 workers", f"{_VALID}: signer, 2 workers", _CONSTANT, 1.6, times=True),
    _rate(
        f"{_VALID}, on, 2 workers by one",
        f"{_VALID}: signer, 2 workers",
        f"{_VALID}: signer",
        None,
        times=True,
    ),
    _rate(f"{_CONSTANT}, 2 workers by one", f"{_CONSTANT}, 2 workers", _CONSTANT, None, times=True),
    _rate(f"{_VALID}, on", f"{_VALID}: signer", _BARE, 0.55),
    _rate(f"{_VALID}, both off", f"{_VALID}: signer, both off", _BARE, 0.7),
    _rate(f"{_ISSUE}, on, audit off", f"{_ISSUE}: signer", f"{_ISSUE}: Starlette constant", 0.9),
    _rate(
        f"{_ISSUE}, on, audit off", f"{_ISSUE}: signer", f"{_ISSUE}: Starlette constant, our protocol", None
    ),
    _rate(
        f"{_ISSUE}, both and audit off", f"{_ISSUE}: signer, both off", f"{_ISSUE}: Starlette constant", None
    ),
    _rate(
        f"{_ISSUE}, audit on stdout",
        f"{_ISSUE}: signer, audit on stdout",
        f"{_ISSUE}: Starlette constant",
        None,
    ),
    _rate(
        f"{_ISSUE}, audit in a file",
        f"{_ISSUE}: signer, audit in a file",
        f"{_ISSUE}: Starlette constant",
        None,
    ),
    _rate(f"{_VALID}, on, by the original", f"{_VALID}: signer", f"{_VALID}: original", 50, times=True),
    _rate(f"{_ISSUE}, on, by the original", f"{_ISSUE}: signer", f"{_ISSUE}: original", 60, times=True),
    _bound("batch validation, tokens a second", "POST /app/valid, tokens: signer", 200_000, is_least=True),
    _notes,
    _rate(
        "POST /app/consume, 64 connections",
        "POST /app/consume: signer",
        "POST /app/consume: one by one",
        5,
        times=True,
    ),
    _rate("the same", "POST /app/consume: signer", "one durable commit each", None, times=True),
    _rate(
        "consume of the library, 64 together",
        "Signer.consume, 64 together",
        "Signer.consume, one by one",
        None,
        times=True,
    ),
    _rate(
        "POST /app/consume, audit in a file",
        "POST /app/consume: signer, audit in a file",
        "one durable commit each",
        None,
        times=True,
    ),
    _exactly_once,
    _bound("1,000 connections in a burst, p99", "burst of 1000, p99", 100, by_worst=True),
    _bound("1,000 connections in a burst, errors", "burst of 1000, errors", 0, by_worst=True),
    _bound("1,000 connections of wrk, p99", "wrk with 1000, p99", 100, by_worst=True),
    _bound("1,000 connections of wrk, errors", "wrk with 1000, errors", 0, by_worst=True),
    _engines,
    _unmoved,
    _memory,
)


def _text(sample: Sample) -> str:
    return f"{_number(sample.median)} {sample.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
