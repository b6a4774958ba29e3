"""The key ring."""

import hashlib
import hmac
from base64 import urlsafe_b64encode

import pytest
from support.service import KEY

from signer import KeyRing, generate_key
from signer.errors import KeyInvalid
from signer.tokens.keys import Key


def test_a_generated_key_is_accepted_and_never_the_same() -> None:
    """generate_key() makes keys of 256 random bits that KeyRing takes."""
    first, second = generate_key(), generate_key()
    assert first != second
    assert len(bytes.fromhex(first)) == 32
    KeyRing(first, [second])


@pytest.mark.parametrize("secret", ["", b"", "x" * 31, b"x" * 31])
def test_an_empty_or_short_key_is_refused_with_the_way_to_a_good_one(secret: str | bytes) -> None:
    """A weak key stops the start and says how to make one."""
    with pytest.raises(KeyInvalid, match="python -m signer keygen"):
        KeyRing(secret)
    with pytest.raises(KeyInvalid, match="python -m signer keygen"):
        KeyRing(KEY, [secret])


def test_the_same_key_twice_is_refused() -> None:
    """Two keys with one id cannot be told apart."""
    with pytest.raises(KeyInvalid, match="python -m signer keygen"):
        KeyRing(KEY, [KEY])


def test_fallbacks_given_as_one_string_are_refused() -> None:
    """A string is a sequence of characters, and none of them is a key."""
    with pytest.raises(KeyInvalid, match="as a list"):
        KeyRing(KEY, "another-key-of-more-than-thirty-two-bytes")
    with pytest.raises(KeyInvalid, match="KeyRing"):
        KeyRing([KEY, KEY])  # type: ignore[arg-type]


def test_the_key_id_is_the_documented_one() -> None:
    """First 6 characters of base64url(HMAC-SHA256(secret, "signer.v1.kid"))."""
    mac = hmac.digest(KEY.encode(), b"signer.v1.kid", hashlib.sha256)
    assert Key(KEY).id == urlsafe_b64encode(mac).decode()[:6]


def test_a_key_that_is_no_text_is_refused_and_not_kept() -> None:
    """A byte that is not UTF-8 in the environment; the error of encoding it would hold the key."""
    with pytest.raises(KeyInvalid, match="UTF-8") as caught:
        KeyRing(KEY + "\udcff")
    assert caught.value.__context__ is None


def test_no_repr_shows_a_key() -> None:
    """Keys stay out of logs and tracebacks that print what they hold."""
    ring = KeyRing(KEY, [generate_key()])
    assert KEY not in f"{ring!r}{ring.current!r}{ring.__dict__!r}"
