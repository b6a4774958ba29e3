"""A list whose calls are timed says what the list says."""

from signer.stores.memory import MemoryStore
from signer.stores.timed import TimedStore
from signer.tokens.claims import Claims

EXP = 1_800_000_000


def claims(jti: str) -> Claims:
    return Claims(jti=jti, exp=EXP, purpose="access")


def test_a_revocation_after_a_purge_is_seen() -> None:
    """A list in memory makes its index anew then, and the timed view keeps a method of it."""
    store = TimedStore(MemoryStore(), lambda name, seconds: None)
    store.revoke("access/gone", 1000)
    store.purge(2000)
    assert store.view.is_clear(claims("a" * 22), EXP)
    store.revoke(f"access/{'a' * 22}", EXP)
    assert not store.view.is_clear(claims("a" * 22), EXP)


def test_each_call_is_reported_under_its_name() -> None:
    """The metrics show these names. A look-up of a validation is a look-up, and `is_clear` is not timed."""
    reported: list[str] = []
    store = TimedStore(MemoryStore(), lambda name, seconds: reported.append(name))
    store.view.is_clear(claims("a" * 22), EXP)
    store.view.recall("x", EXP, ())
    store.view.at(0.0).recall("x", EXP, ())
    store.lookup("x", EXP, ())
    store.use("x", EXP, 1)
    assert reported == ["lookup", "lookup", "lookup", "use"]


def test_a_closed_list_is_clear_of_nothing() -> None:
    """Whatever a caller has kept of its view."""
    store = MemoryStore()
    view = TimedStore(store, lambda name, seconds: None).view
    store.close()
    assert not view.is_clear(claims("a" * 22), EXP)
