"""The format, held against stock itsdangerous both ways, and against every other spelling."""

import gc
import hashlib
import hmac
import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import BadData, URLSafeTimedSerializer
from itsdangerous import Signer as StockSigner
from itsdangerous.encoding import base64_encode, int_to_bytes
from itsdangerous.signer import HMACAlgorithm
from support.plain import PlainCodec
from support.service import KEY

from signer import KeyRing, Signer, Store, TokenError
from signer.errors import RequestInvalid, TokenMalformed, TokenPurposeWrong, TokenSignatureInvalid
from signer.policy import MAX_TOKEN_LENGTH
from signer.tokens.claims import MAX_TIME, Claims
from signer.tokens.codec import MAX_SIGNERS, Codec, PreKeyedHMAC
from signer.tokens.keys import Key

NOW = 1_800_000_000
KID = Key(KEY).id
ALPHABET = string.ascii_letters + string.digits + "-_"
JTI = "AAAAAAAAAAAAAAAAAAAAAA"

texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40)
words = st.text(ALPHABET + "._", min_size=1, max_size=20).filter(
    lambda text: text[0] not in "-._" and text != "kid"
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(-(2.0**63), 2.0**63, exclude_max=True)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
asked = st.fixed_dictionaries(
    {"purpose": words},
    optional={
        "sub": texts,
        "ttl": st.integers(1, 10**6),
        "aud": words,
        "sid": words,
        "client_id": words,
        "scope": st.lists(words, min_size=1, max_size=3).map(" ".join),
        "data": json_values,
    },
)


class UncompressedSerializer(URLSafeTimedSerializer):
    """Stock but for one step: a payload that compresses well stays as it is."""

    def dump_payload(self, obj: Any) -> bytes:
        return base64_encode(json.dumps(obj, separators=(",", ":")))


def stock(
    purpose: str, kind: type[URLSafeTimedSerializer] = URLSafeTimedSerializer
) -> URLSafeTimedSerializer:
    return kind(
        KEY,
        salt="signer.v1." + purpose,
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def stock_token(payload: Any, purpose: str = "access") -> str:
    """A token of our format made by itsdangerous alone."""
    return f"sgt_{KID}." + str(stock(purpose, UncompressedSerializer).dumps(payload))


def codec() -> Codec:
    return Codec(KeyRing(KEY))


@given(asked)
def test_stock_loads_what_we_issue(request: dict[str, Any]) -> None:
    """Anyone with the key can check a token without us, after dropping the prefix."""
    signer = Signer(KEY, clock=lambda: NOW)
    token = signer.issue(**request)
    loaded, when = stock(request["purpose"]).loads(token.split(".", 1)[1], return_timestamp=True)
    assert when.timestamp() == NOW
    assert loaded["exp"] == NOW + request.pop("ttl", 3600)
    # None is what is not said.
    assert {name: loaded.get(name) for name in request} == request


@given(asked)
def test_we_accept_what_stock_issues_in_our_format(request: dict[str, Any]) -> None:
    """The same claims, signed by itsdangerous alone."""
    ttl = request.pop("ttl", 3600)
    claims = codec().decode(
        stock_token({"jti": JTI, "exp": NOW + ttl, **request}, request["purpose"]), request["purpose"]
    )
    assert (claims.jti, claims.exp, claims.kid) == (JTI, NOW + ttl, KID)
    assert {name: getattr(claims, name) for name in request} == request


@given(st.data())
def test_whatever_stock_refuses_we_refuse(data: st.DataObject) -> None:
    """Tokens cut, spliced and changed anywhere."""
    parts = [Signer(KEY, clock=lambda: NOW).issue(sub=sub) for sub in ("alice", "bob")]
    text = "".join(data.draw(st.sampled_from(parts))[i] for i in range(len(min(parts, key=len))))
    position = data.draw(st.integers(0, len(text)))
    text = (
        text[:position]
        + data.draw(st.text(ALPHABET + ".=!é", max_size=3))
        + text[position + data.draw(st.integers(0, 3)) :]
    )
    try:
        stock("access").loads(text.split(".", 1)[-1])
    except BadData:
        with pytest.raises(TokenError):
            codec().decode(text, "access")


@given(st.text() | st.text(ALPHABET + ".", max_size=80).map(lambda text: f"sgt_{KID}.{text}"))
def test_nothing_but_our_errors_comes_out(text: str) -> None:
    """Any text, to every function that reads one."""
    reads: list[Callable[[], Claims]] = [
        lambda: codec().decode(text, "access"),
        lambda: codec().decode(text),
        lambda: codec().read(text),
    ]
    for read in reads:
        with pytest.raises(TokenError):
            read()


@given(st.binary(max_size=200))
def test_nothing_but_our_errors_comes_out_of_a_signed_payload(payload: bytes) -> None:
    """Bytes signed with the right key, which are hardly ever claims."""
    signed = stock("access").make_signer().sign(base64_encode(payload)).decode()
    try:
        claims = codec().decode(f"sgt_{KID}.{signed}", "access")
    except TokenError:
        return
    assert isinstance(claims, Claims)


BOMBS: list[Any] = [
    "[" * 3000,
    '{"a":' * 500,
    '{"jti":"' + JTI + '","exp":1e400}',
    '{"jti":"' + JTI + '","exp":' + "9" * 2900 + "}",
    '{"jti":"\\ud800"}',
    b"\xff\xfe",
    "",
    "null",
    "[]",
]


@pytest.mark.parametrize("payload", BOMBS, ids=range(len(BOMBS)))
def test_a_hostile_payload_is_malformed_signed_or_not(payload: str | bytes) -> None:
    """Brackets without end, numbers without end, no text at all: one error."""
    encoded = base64_encode(payload)
    signed = stock("access").make_signer().sign(encoded).decode()
    for token in (f"sgt_{KID}.{signed}", f"sgt_{KID}.{encoded.decode()}.awSZmw." + "A" * 43):
        for decode in (codec().decode, codec().read):
            with pytest.raises(TokenMalformed):
                decode(token)


def test_of_all_single_character_changes_none_verifies(signer: Signer, store: Store) -> None:
    """Every edit, insertion and deletion at every place, before and after revocation: a list keyed by id
    cannot be passed by another spelling."""
    token = signer.issue()
    characters = ALPHABET + ".=!~+/ \n\x00é"
    for is_revoked in (False, True):
        for place in range(len(token) + 1):
            for character in characters:
                edited = token[:place] + character + token[place + 1 :]
                inserted = token[:place] + character + token[place:]
                for changed in {edited, inserted} - {token}:
                    assert _refused(signer, changed), (place, character)
            if place < len(token):
                assert _refused(signer, token[:place] + token[place + 1 :]), place
        assert _refused(signer, token) == is_revoked
        signer.revoke(token)
    assert store.count() == 1


def _refused(signer: Signer, token: str) -> bool:
    try:
        signer.validate(token)
    except TokenError:
        return True
    return False


def test_no_other_base64_spelling_of_any_part_verifies(signer: Signer) -> None:
    """itsdangerous 2.2.0 takes four last characters, padding and strange characters for one signature."""
    token = signer.issue()
    inner = token.split(".", 1)[1]
    head, signature = token.rsplit(".", 1)
    others = [signature[:-1] + character for character in ALPHABET if character != signature[-1]]
    assert sum(_stock_accepts(inner.rsplit(".", 1)[0] + "." + other) for other in others) == 3
    others += [signature + "=", signature[:20] + "!!!!" + signature[20:], signature + "\n", " " + signature]
    for other in others:
        with pytest.raises(TokenError):
            signer.validate(f"{head}.{other}")


def _stock_accepts(text: str) -> bool:
    try:
        stock("access").loads(text)
    except BadData:
        return False
    return True


def test_a_compressed_payload_is_refused() -> None:
    """Nothing is inflated: stock's zlib form is not of our format."""
    token = f"sgt_{KID}." + str(
        stock("access").dumps({"jti": JTI, "exp": NOW, "purpose": "access", "data": "a" * 2000})
    )
    assert f"sgt_{KID}.." in token
    with pytest.raises(TokenMalformed):
        codec().decode(token, "access")


def test_a_timestamp_has_one_spelling() -> None:
    """No leading zero bytes, no loose last bits, none past the year 9999."""
    payload = base64_encode(json.dumps({"jti": JTI, "exp": NOW, "purpose": "access"}))
    signer = stock("access").make_signer()
    good = base64_encode(int_to_bytes(NOW))
    other_bits = good[:-1] + bytes([ALPHABET.encode()[ALPHABET.index(chr(good[-1])) + 1]])
    assert codec().decode(_signed(signer, payload, good), "access").iat == NOW
    for timestamp in (
        base64_encode(b"\x00" + int_to_bytes(NOW)),
        other_bits,
        base64_encode(int_to_bytes(MAX_TIME + 1)),
        b"A",
        b"",  # which is how stock itsdangerous writes 0
        b"AA",
    ):
        with pytest.raises(TokenMalformed):
            codec().decode(_signed(signer, payload, timestamp), "access")


def _signed(signer: Any, payload: bytes, timestamp: bytes) -> str:
    value = payload + b"." + timestamp
    return f"sgt_{KID}.{(value + b'.' + signer.get_signature(value)).decode()}"


@pytest.mark.parametrize(
    "payload",
    [
        {"jti": JTI, "exp": NOW, "purpose": "access", "only_on_sundays": True},
        {"jti": JTI, "exp": NOW, "purpose": "access", "iat": 1},
        {"jti": JTI, "exp": NOW, "purpose": "access", "kid": "x"},
        {"jti": JTI, "purpose": "access"},
        {"exp": NOW, "purpose": "access"},
        {"jti": JTI, "exp": NOW},
        {"jti": JTI, "exp": True, "purpose": "access"},
        {"jti": JTI, "exp": -1, "purpose": "access"},
        {"jti": JTI, "exp": MAX_TIME + 1, "purpose": "access"},
        {"jti": JTI, "exp": NOW, "purpose": "access", "max_uses": 0},
        {"jti": JTI, "exp": NOW, "purpose": "access", "gen": -1},
        # No index could hold them: such a token could be neither revoked nor used.
        {"jti": "x" * 256, "exp": NOW, "purpose": "access"},
        {"jti": JTI, "exp": NOW, "purpose": "access", "sid": "x" * 256},
        {"jti": JTI, "exp": NOW, "purpose": "access", "client_id": "x" * 256},
    ],
)
def test_signed_claims_that_we_do_not_understand_are_refused(payload: dict[str, Any]) -> None:
    """An unknown member may be a restriction of a later version; ignoring it would fail open."""
    with pytest.raises(TokenMalformed):
        codec().decode(stock_token(payload), "access")


def test_a_strange_id_does_not_escape_revocation(signer: Signer) -> None:
    """A holder of a purpose's key can sign an id with a slash, which separates the parts of a row's name."""
    for strange in ("x/", "access/", "/"):
        payload = json.dumps({"jti": strange + JTI, "exp": NOW + 3600, "purpose": "access"})
        stamp = base64_encode(int_to_bytes(NOW))
        token = _signed(stock("access").make_signer(), base64_encode(payload), stamp)
        signer.validate(token)
        signer.revoke(token)
        with pytest.raises(TokenError):
            signer.validate(token)


def test_a_payload_signed_for_one_purpose_cannot_claim_another() -> None:
    """Claim and key must agree, whichever of the two is asked about."""
    token = stock_token({"jti": JTI, "exp": NOW, "purpose": "reset"}, "access")
    with pytest.raises(TokenPurposeWrong):
        codec().decode(token, "access")
    with pytest.raises(TokenSignatureInvalid):
        codec().decode(token, "reset")
    with pytest.raises(TokenSignatureInvalid):
        codec().decode(token)


def test_strangers_do_not_fill_memory_with_purposes() -> None:
    """A bounded number of derived keys is cached, for any number of purposes that they try."""
    tried = codec()
    for number in range(MAX_SIGNERS + 100):
        with pytest.raises(TokenSignatureInvalid):
            tried.decode(stock_token({"jti": JTI, "exp": NOW, "purpose": f"p{number}"}, "other"))
        assert len(tried._macs) <= MAX_SIGNERS


def test_the_longest_token_is_accepted_and_a_longer_one_not_made() -> None:
    """4096 characters, issued and read alike."""
    signer = Signer(KEY, clock=lambda: NOW)
    sizes = iter(range(2900, 3000))
    longest = ""
    with pytest.raises(RequestInvalid, match="4096"):  # noqa: PT012 - which call fails is not known
        while True:
            longest = signer.issue(data="x" * next(sizes))
    assert MAX_TOKEN_LENGTH - 2 <= len(longest) <= MAX_TOKEN_LENGTH
    signer.validate(longest)
    with pytest.raises(TokenMalformed):
        signer.validate(longest + "A" * 3)


claims_of_any_kind = st.builds(
    Claims,
    jti=st.just(JTI) | texts,
    exp=st.integers(0, MAX_TIME),
    purpose=words | st.just("access"),
    sub=st.none() | texts,
    scope=st.none() | words,
    aud=st.none() | words,
    client_id=st.none() | words,
    sid=st.none() | words,
    data=json_values,
    max_uses=st.none() | st.integers(1, 100),
    gen=st.integers(0, 2**53),
    auth_time=st.none() | st.integers(0, MAX_TIME),
)
rings = [KeyRing(KEY), KeyRing("n" * 40, [KEY]), KeyRing("n" * 40)]


def outcome(decode: Callable[..., Claims], *arguments: str) -> Claims | type[Exception]:
    try:
        return decode(*arguments)
    except TokenError as error:
        return type(error)


@given(claims_of_any_kind, st.integers(1, MAX_TIME))
def test_the_fast_path_writes_what_the_plain_one_does(claims: Claims, iat: int) -> None:
    """Byte for byte, and notes what it wrote in the claims."""
    plain = PlainCodec(KeyRing(KEY)).encode(claims, iat)
    try:
        token = codec().encode(claims, iat)
    except RequestInvalid:
        assert len(plain) > MAX_TOKEN_LENGTH
        return
    assert token == plain
    assert (claims.iat, claims.kid) == (iat, KID)


@given(
    claims_of_any_kind, st.integers(1, MAX_TIME), st.sampled_from(rings), words | st.just("access"), st.data()
)
def test_the_fast_path_reads_what_the_plain_one_does(
    claims: Claims, iat: int, ring: KeyRing, purpose: str, data: st.DataObject
) -> None:
    """The same claims, or the same refusal, for good tokens and for ones changed anywhere."""
    token = PlainCodec(KeyRing(KEY)).encode(claims, iat)
    position = data.draw(st.integers(0, len(token)))
    changed = (
        token[:position]
        + data.draw(st.text(ALPHABET + ".=!+/ é\n", max_size=2))
        + token[position + data.draw(st.integers(0, 2)) :]
    )
    for text in (token, changed):
        for arguments in ((text,), (text, purpose), (text, claims.purpose)):
            assert outcome(Codec(ring).decode, *arguments) == outcome(PlainCodec(ring).decode, *arguments)


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
def test_the_algorithm_is_an_hmac_for_itsdangerous(length: int) -> None:
    """At its documented extension point, for keys shorter and longer than a block."""
    key = b"k" * length
    expected = hmac.digest(key, b"value", hashlib.sha256)
    assert PreKeyedHMAC().get_signature(key, b"value") == expected
    mac = PreKeyedHMAC().keyed(key)
    assert [mac(b"value"), mac(b"other"), mac(b"value")][::2] == [expected, expected]
    if key:
        one, other = (
            StockSigner(key, algorithm=algorithm)
            for algorithm in (PreKeyedHMAC(), HMACAlgorithm(hashlib.sha256))
        )
        assert one.sign("value") == other.sign("value")
        assert other.unsign(one.sign("value")) == b"value"


@pytest.mark.parametrize("prefix", ["abc_", "SGT_", "sgt-", "", "sgt_sgt_"])
def test_a_token_begins_as_ours_do(prefix: str) -> None:
    """The prefix is not signed, so that it must be looked at."""
    token = Signer(KEY, clock=lambda: NOW).issue()
    for decode in (codec().decode, codec().read):
        with pytest.raises(TokenMalformed):
            decode(prefix + token.removeprefix("sgt_"))


def test_a_refusal_leaves_no_garbage_for_the_collector() -> None:
    """Otherwise strangers' tokens would trigger it all the time; stock itsdangerous leaves 20 objects per token."""
    signer = Signer(KEY)
    token = signer.issue(sub="42")
    forged = [
        token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"),
        token[:40],
        "x",
        token.replace("sgt_", "sgt_A"),
    ]
    assert all(_refused(signer, text) for text in forged)
    gc.collect()
    gc.disable()
    try:
        for text in forged * 100:
            _refused(signer, text)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("purpose", ["", "a b", "é", "x" * 65, 5, None, ["access"], "kid"])
def test_a_purpose_that_no_token_has_is_the_callers_mistake(purpose: Any) -> None:
    """Above all None, which would mean any."""
    signer = Signer(KEY)
    with pytest.raises(RequestInvalid):
        signer.validate(signer.issue(), purpose=purpose)
