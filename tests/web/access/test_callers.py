"""Which callers can do what in production."""

from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from support.service import KEY, Service, client

from signer import Signer, generate_key

GUARDED = {
    ("POST", "/app/token"): "token:issue",
    ("POST", "/app/valid"): "token:introspect",
    ("POST", "/app/consume"): "token:introspect",
    ("POST", "/app/revoke"): "token:revoke",
    ("DELETE", "/app/clear/all/tokens"): "token:purge",
    ("GET", "/app/revocations"): "revocations:read",
}
SERVICE_SCOPES = sorted({*GUARDED.values(), "metrics:read"})


def credential(service: Service, scope: str, name: str = "someone") -> str:
    return client(name, scope)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service. It is called without a credential unless a test gives one."""
    with Service(tmp_path_factory.mktemp("callers"), {"SECRET_KEY": KEY}) as service:
        yield service


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_credential_it_is_401(closed: Service, method: str, path: str) -> None:
    """The challenge names only the scheme (RFC 6750, section 3.1)."""
    reply = closed.call(method, path, b"not even json")
    assert (reply.status, reply.json["code"]) == (401, "credential_missing")
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="signer"'


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_every_other_scope_is_403(closed: Service, method: str, path: str) -> None:
    """Each route needs one scope, and no other is enough."""
    others = " ".join(scope for scope in SERVICE_SCOPES if scope != GUARDED[method, path])
    reply = closed.call(method, path, b"not even json", credential=credential(closed, others))
    assert (reply.status, reply.json["code"]) == (403, "scope_insufficient")
    assert GUARDED[method, path] in reply.json["detail"]
    assert 'error="insufficient_scope"' in reply.headers["WWW-Authenticate"]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_the_one_scope_is_enough(closed: Service, method: str, path: str) -> None:
    """With it, a call gets as far as its body."""
    bodies = {"/app/token": {}, "/app/revoke": {"sub": "x"}, "/app/clear/all/tokens": None}
    body = bodies.get(path, {"token": Signer(KEY).issue()})
    reply = closed.call(method, path, body, credential=credential(closed, GUARDED[method, path]))
    assert reply.status == 200, reply.raw


def test_open_routes_need_none(closed: Service) -> None:
    """GET /app/valid, as in the original contract, and probes."""
    for path in ("/app/valid/x", "/healthz", "/readyz"):
        assert closed.call("GET", path).status == 200
    assert closed.call("POST", "/app/valid/x").status == 200


def test_what_is_no_valid_credential_is_401(closed: Service) -> None:
    """Forged, foreign, of another purpose, expired or revoked: one answer, which does not say which."""
    good = credential(closed, "token:issue")
    revoked = credential(closed, "token:issue", "revoked")
    closed.call("POST", "/app/revoke", {"token": revoked}, credential=credential(closed, "token:revoke"))
    ordinary = closed.call("POST", "/app/token", {"sub": "x"}, credential=good).json["token"]
    old = Signer(KEY, clock=lambda: 1_700_000_000).issue(
        purpose="signer:client", sub="x", client_id="x", scope="token:issue"
    )
    foreign = Signer(generate_key()).issue(
        purpose="signer:client", sub="x", client_id="x", scope="token:issue"
    )
    answers = set()
    for text in ("", "x", "x" * 9000, ordinary, old, foreign, revoked, good[:-1], good + "=", "é"):
        reply = closed.call(
            "POST", "/app/token", headers={"Authorization": f"Bearer {text}".encode().decode("latin-1")}
        )
        assert reply.status == 401, text
        assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]
        answers.add(reply.raw)
    assert len(answers) == 1


@pytest.mark.parametrize(
    "value",
    ["Digest x", "Bearer", "", "Basic", "Basic !!!", "Basic " + b64encode(b"\xff").decode(), "basic eA=="],
)
def test_other_schemes_and_broken_headers_are_401(closed: Service, value: str) -> None:
    """The challenge names the scheme that was tried."""
    reply = closed.call("POST", "/app/token", headers={"Authorization": value})
    assert reply.status == 401
    scheme = "Basic" if value.lower().startswith("basic") else "Bearer"
    assert reply.headers["WWW-Authenticate"].startswith(f'{scheme} realm="signer"')
    # RFC 6750, section 3.1: no error if no token was sent.
    assert ("error=" in reply.headers["WWW-Authenticate"]) == (value == "Bearer")


def test_a_credential_names_its_client_once(closed: Service) -> None:
    """A caller is known by one claim and revoked by another, so the two must agree. With neither, it has no
    client."""
    signer = Signer(KEY)
    for sub, client_id in (("x", None), (None, "x"), ("x", "y"), (None, None)):
        credential = signer.issue(purpose="signer:client", scope="token:issue", sub=sub, client_id=client_id)
        assert closed.call("POST", "/app/token", credential=credential).status == 401
    credential = signer.issue(purpose="signer:client", scope="token:issue", sub="x", client_id="x")
    assert closed.call("POST", "/app/token", credential=credential).status == 200


def test_two_authorization_headers_are_401(closed: Service) -> None:
    """A proxy and the service might each read another one."""
    good = credential(closed, "token:issue").encode()
    header = b"Authorization: Bearer " + good + b"\r\n"
    answer = closed.send_raw(
        b"POST /app/token HTTP/1.1\r\nHost: x\r\n" + header * 2 + b"Content-Length: 0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "encode", [str, lambda text: quote(text, safe=""), lambda text: "".join(f"%{ord(c):02x}" for c in text)]
)
@pytest.mark.parametrize("scheme", ["Basic", "basic"])
def test_basic_is_taken_percent_encoded_and_raw(closed: Service, encode: object, scheme: str) -> None:
    """RFC 6749, section 2.3.1, requires encoding; half of the clients do not encode."""
    assert callable(encode)
    good = credential(closed, "token:issue", "a.client~1")
    pair = b64encode(f"{encode('a.client~1')}:{encode(good)}".encode()).decode()
    assert closed.call("POST", "/app/token", headers={"Authorization": f"{scheme} {pair}"}).status == 200


def test_basic_with_another_clients_name_is_401(closed: Service) -> None:
    """The name must be that of the credential."""
    pair = b64encode(f"else:{credential(closed, 'token:issue', 'someone')}".encode()).decode()
    assert closed.call("POST", "/app/token", headers={"Authorization": f"Basic {pair}"}).status == 401


def test_anonymous_scopes_open_what_they_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    """And nothing else. A bad credential does not count as none."""
    settings = {"SECRET_KEY": KEY, "ANONYMOUS_SCOPES": "token:issue read"}
    with Service(tmp_path_factory.mktemp("anonymous"), settings) as service:
        assert service.call("POST", "/app/token", {"scope": "read"}).status == 200
        assert service.call("POST", "/app/token", {"scope": "write"}).status == 401
        assert service.call("POST", "/app/revoke", {"sub": "x"}).status == 401
        assert service.call("POST", "/app/token", credential="wrong").status == 401
