"""The library and its peers in one process: microseconds for one call."""

import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.lists import fill_with_live
from benchmarks.measuring import Results, Sample, calls, calls_with, interleaved, once
from benchmarks.peers import KEY, SCOPE, SIGNER, SUB, Peer, installed, of_signer, payload, stock
from itsdangerous import BadSignature

from signer import KeyRing, Signer, TokenError, generate_key, open_store

#: Different tokens in one measurement, so that no library gains from a cache of recent tokens.
TOKENS = 1000
US = "µs"


def measure(folder: Path, rounds: int, sizes: Sequence[int]) -> Results:
    """All that this module measures, with lists of these sizes in `folder`."""
    # The large lists come last, because they would slow down the garbage collection for all.
    return {
        **compare(folder, rounds),
        **keys(rounds),
        **forgeries(rounds),
        "garbage of 1000 forged tokens: signer": once("objects", _signers_garbage()),
        "garbage of 1000 forged tokens: stock": once("objects", _stocks_garbage()),
        **list_share(folder, rounds, sizes),
    }


def compare(folder: Path, rounds: int, tokens: int = TOKENS) -> Results:
    """Issue and verify: Signer with each kind of list, and every peer that is installed."""
    with closing(open_store(f"sqlite:///{folder / 'compared.db'}")) as store:
        peers: list[Peer] = [
            *installed(),
            of_signer(f"{SIGNER}, no list"),
            of_signer(f"{SIGNER}, SQLite list", store),
        ]
        cases = {}
        for peer in peers:
            cases[f"issue: {peer.name}"] = calls(peer.issue, tokens)
            cases[f"verify: {peer.name}"] = calls_with(peer.verify, [peer.issue() for _ in range(tokens)])
        # The part that all numbers for issuing contain.
        cases["issue: the payload alone"] = calls(payload, tokens)
        return interleaved(cases, rounds, US)


def keys(rounds: int, tokens: int = TOKENS) -> Results:
    """Tokens of the oldest of ten keys, and the same tokens with only that key."""
    old = generate_key()
    ring = KeyRing(generate_key(), [*(generate_key() for _ in range(8)), old])
    alone, among_ten = (Signer(keys, open_store("memory://")) for keys in (KeyRing(old), ring))
    issued = _issued(alone, tokens)
    cases = {
        "verify: signer, its one key": calls_with(alone.validate, issued),
        "verify: signer, the oldest of 10 keys": calls_with(among_ten.validate, issued),
    }
    return interleaved(cases, rounds, US)


def forgeries(rounds: int, tokens: int = TOKENS) -> Results:
    """Tokens with one wrong character in the signature, which are refused; and good ones, accepted by the
    same code."""
    signer = Signer(KEY, open_store("memory://"))
    good = _issued(signer, tokens)
    refuses = _refuses(signer)
    cases = {
        "accept: signer": calls_with(refuses, good),
        "refuse a forged token: signer": calls_with(refuses, list(map(forged, good))),
    }
    return interleaved(cases, rounds, US)


def garbage(refuses: Callable[[str], bool], bad: Sequence[str]) -> int:
    """How many objects in reference cycles these forged tokens leave to the garbage collector."""
    refuses(bad[0])  # Objects that are made once and kept are no garbage.
    gc.collect()
    gc.disable()
    try:
        assert sum(map(refuses, bad)) == len(bad)
        return gc.collect()
    finally:
        gc.enable()


def list_share(folder: Path, rounds: int, sizes: Iterable[int], tokens: int = TOKENS) -> Results:
    """For lists with this many revoked tokens: the time of a validation, and how much longer it is than
    without a list, in each round."""
    bare = Signer(KEY)
    issued = _issued(bare, tokens)
    found: Results = {}
    for size in sizes:
        path = folder / f"list-{size}.db"
        fill_with_live(path, size)
        with closing(open_store(f"sqlite:///{path}")) as store:
            listed = Signer(KEY, store)
            cases = {
                "without": calls_with(bare.validate, issued),
                "with": calls_with(listed.validate, issued),
            }
            # Not measured: a list may be read into memory at its first look-up.
            cases["with"]()
            pair = interleaved(cases, rounds, US)
        shares = (
            there - gone for there, gone in zip(pair["with"].values, pair["without"].values, strict=True)
        )
        found[f"verify: signer, SQLite list of {size:,}"] = pair["with"]
        found[f"share of a list of {size:,}"] = Sample(US, tuple(shares))
    return found


def forged(token: str) -> str:
    """The token with one character of its signature changed. Not the last one: some of its bits have no
    meaning, and another spelling is refused for another reason."""
    place = len(token) - 20
    return f"{token[:place]}{'A' if token[place] != 'A' else 'B'}{token[place + 1 :]}"


def _issued(signer: Signer, count: int) -> list[str]:
    return [signer.issue(sub=SUB, scope=SCOPE) for _ in range(count)]


def _signers_garbage() -> int:
    signer = Signer(KEY, open_store("memory://"))
    return garbage(_refuses(signer), list(map(forged, _issued(signer, TOKENS))))


def _stocks_garbage() -> int:
    peer = stock()

    def refuses(token: str) -> bool:
        try:
            peer.verify(token)
        except BadSignature:
            return True
        return False

    return garbage(refuses, [forged(peer.issue()) for _ in range(TOKENS)])


def _refuses(signer: Signer) -> Callable[[str], bool]:
    def refuses(token: str) -> bool:
        try:
            signer.validate(token)
        except TokenError:
            return True
        return False

    return refuses
