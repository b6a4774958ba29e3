"""The OAuth endpoints over plain HTTP, as RFC 6749, 6750, 7009, 7662 and 8414 define them."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from support.service import KEY, Reply, Service, cli

from signer import Signer, generate_key, open_store
from signer.credentials import issue_credential
from signer.policy import TRUST

TOKEN, INTROSPECT, REVOKE = ENDPOINTS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke")
METADATA = "/.well-known/oauth-authorization-server"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
GRANT = {"grant_type": "client_credentials"}
#: A valid form for each endpoint.
FORMS = {TOKEN: GRANT, INTROSPECT: {"token": "x"}, REVOKE: {"token": "x"}}
#: Status and error of refusals.
INVALID_REQUEST = (400, "invalid_request")
INVALID_SCOPE = (400, "invalid_scope")
INVALID_CLIENT = (401, "invalid_client")
INSUFFICIENT = (403, "insufficient_scope")
SCOPE = "token:introspect token:revoke read write"

Fields = Mapping[str, str] | Sequence[tuple[str, str]] | bytes


@dataclass(frozen=True)
class Client:
    """A client's id and secret, and the ways to send them."""

    id: str
    secret: str

    @property
    def basic(self) -> dict[str, str]:
        return basic(f"{self.id}:{self.secret}")

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    @property
    def form(self) -> dict[str, str]:
        return {"client_id": self.id, "client_secret": self.secret}


def basic(pair: str) -> dict[str, str]:
    """The header for this user name and password, without encoding them."""
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def new_client(name: str, scope: str = SCOPE, age: int = 0) -> Client:
    """A client whose credential was made `age` seconds ago and lasts an hour."""
    signer = Signer(KEY, clock=lambda: time.time() - age)
    return Client(name, issue_credential(signer, name, scope, 3600))


def post(service: Service, path: str, form: Fields, headers: Mapping[str, str] | None = None) -> Reply:
    """Send a form, as every OAuth client does."""
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    return service.call("POST", path, body, {**FORM, **(headers or {})})


def granted(service: Service, client: Client) -> str:
    """An access token for the client."""
    reply = post(service, TOKEN, GRANT, client.basic)
    assert reply.status == 200, reply.raw
    return str(reply.json["access_token"])


def introspected(service: Service, token: str, client: Client) -> Any:
    """The answer of introspection about a token."""
    reply = post(service, INTROSPECT, {"token": token}, client.basic)
    assert reply.status == 200, reply.raw
    return reply.json


def refusal(reply: Reply) -> tuple[int, str]:
    """Status and error of an answer that is an error exactly as in RFC 6749, section 5.2."""
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"
    assert set(reply.json) == {"error", "error_description"}
    for text in reply.json.values():
        assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", text)
    return reply.status, reply.json["error"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service. It is called without a credential unless a test gives one."""
    with Service(tmp_path_factory.mktemp("oauth"), {"SECRET_KEY": KEY}) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Client:
    """A client, made as its operator makes it."""
    made = cli(service.directory, "client", "app.one~x", "--scope", SCOPE, "--ttl", "1d", SECRET_KEY=KEY)
    return Client("app.one~x", made.stdout.strip())


class TestTokenEndpoint:
    """RFC 6749, section 4.4."""

    def test_the_answer_has_these_members_and_no_others(self, service: Service, client: Client) -> None:
        """Above all no refresh_token (section 4.4.3), and no cache stores it (section 5.1)."""
        reply = post(service, TOKEN, GRANT, client.basic)
        assert reply.status == 200
        token = reply.json["access_token"]
        assert reply.json == {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "read write",
        }
        assert type(reply.json["expires_in"]) is int
        assert reply.headers["Content-Type"] == "application/json"
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["Pragma"] == "no-cache"
        claims = introspected(service, token, client)
        assert claims["exp"] - claims["iat"] == 3600
        assert claims["sub"] == claims["client_id"] == client.id

    @pytest.mark.parametrize("asked", ["read", "write", "read write", "write read", "read read"])
    def test_a_client_may_ask_for_less(self, service: Service, client: Client, asked: str) -> None:
        """The answer and the token say what it got."""
        reply = post(service, TOKEN, {**GRANT, "scope": asked}, client.basic)
        assert set(reply.json["scope"].split(" ")) == set(asked.split(" "))
        assert introspected(service, reply.json["access_token"], client)["scope"] == reply.json["scope"]

    @pytest.mark.parametrize(
        "asked",
        ["admin", "read admin", "READ", "read,write", "token:revoke", "read token:introspect", " ", "é"],
    )
    def test_not_for_more(self, service: Service, client: Client, asked: str) -> None:
        """Nor for its scopes at this service itself, which a token in other hands must not have."""
        assert refusal(post(service, TOKEN, {**GRANT, "scope": asked}, client.basic)) == INVALID_SCOPE

    def test_who_holds_no_scope_to_hand_out_gets_no_token(self, service: Service) -> None:
        """Section 3.3: it asks for no scope, and there is no default."""
        client = new_client("checker", "token:introspect")
        assert refusal(post(service, TOKEN, GRANT, client.basic)) == INVALID_SCOPE

    @pytest.mark.parametrize("grant", ["password", "refresh_token", "urn:example:x", "CLIENT_CREDENTIALS"])
    def test_other_grants_are_not_supported(self, service: Service, client: Client, grant: str) -> None:
        """Section 5.2."""
        reply = post(service, TOKEN, {"grant_type": grant}, client.basic)
        assert refusal(reply) == (400, "unsupported_grant_type")

    def test_no_grant_is_an_invalid_request(self, service: Service, client: Client) -> None:
        """Section 5.2: a required parameter is missing."""
        assert refusal(post(service, TOKEN, {"scope": "read"}, client.basic)) == INVALID_REQUEST

    def test_an_access_token_is_no_credential(self, service: Service, client: Client) -> None:
        """Otherwise a client could prolong its own life forever."""
        stolen = Client(client.id, granted(service, client))
        for headers in (stolen.basic, stolen.bearer):
            assert refusal(post(service, TOKEN, GRANT, headers)) == INVALID_CLIENT


class TestIntrospection:
    """RFC 7662."""

    def test_an_active_token_is_told_with_exactly_these_members(
        self, service: Service, client: Client
    ) -> None:
        """Section 2.2; times are whole seconds."""
        token = granted(service, client)
        told = introspected(service, token, client)
        assert told == {
            "active": True,
            "token_type": "Bearer",
            "iss": f"http://127.0.0.1:{service.port}",
            "sub": client.id,
            "client_id": client.id,
            "scope": "read write",
            "jti": Signer(KEY).inspect(token).unverified_claims.jti,
            "iat": told["iat"],
            "exp": told["iat"] + 3600,
            "purpose": "access",
        }
        assert told["active"] is True
        assert type(told["iat"]) is type(told["exp"]) is int
        assert abs(told["iat"] - time.time()) < 30

    def test_what_a_token_does_not_say_is_left_out(self, service: Service, client: Client) -> None:
        """Not null; members of our own are there."""
        told = introspected(service, Signer(KEY).issue(), client)
        assert set(told) == {"active", "token_type", "iss", "jti", "iat", "exp", "purpose"}
        said = {"aud": "web", "sid": "s1", "data": {"a": [1, None]}, "purpose": "reset"}
        told = introspected(service, Signer(KEY).issue(**said), client)  # type: ignore[arg-type]
        assert {name: told[name] for name in said} == said

    @pytest.mark.parametrize(
        "token",
        ["x", "sgt_", "x" * 9000, "é", "\x00", '{"active":true}', KEY],
        ids=["text", "prefix", "long", "not ASCII", "NUL", "JSON", "the key"],
    )
    def test_what_is_no_token_is_inactive(self, service: Service, client: Client, token: str) -> None:
        """Section 2.2: not an error."""
        assert introspected(service, token, client) == {"active": False}

    @pytest.mark.parametrize(
        "issued",
        [
            lambda: Signer(generate_key()).issue(sub="42"),
            lambda: Signer(KEY).issue(sub="42")[:-4] + "AAAA",
            lambda: Signer(KEY, clock=lambda: time.time() - 7200).issue(sub="42"),
            lambda: Signer(KEY, clock=lambda: time.time() + 7200).issue(sub="42"),
            lambda: Signer(KEY).issue(sub="42", bind="old-hash"),
            lambda: new_client("someone").secret,
            lambda: Signer(KEY).issue(sub="42", purpose="signer:else"),
        ],
        ids=["foreign", "forged", "expired", "of the future", "bound", "a credential", "the service's own"],
    )
    def test_a_token_that_is_not_good_is_inactive(
        self, service: Service, client: Client, issued: Callable[[], str]
    ) -> None:
        """The answer is always the same to the byte, and does not say why."""
        reply = post(service, INTROSPECT, {"token": issued()}, client.basic)
        assert (reply.status, reply.raw) == (200, b'{"active":false}')

    def test_a_revoked_one_and_one_used_up_are_inactive(self, service: Service, client: Client) -> None:
        """Each was active before."""
        revoked, used = granted(service, client), Signer(KEY).issue()
        assert introspected(service, revoked, client)["active"] is True
        assert introspected(service, used, client)["active"] is True
        assert post(service, REVOKE, {"token": revoked}, client.basic).status == 200
        assert service.call("POST", "/app/consume", {"token": used}, client.bearer).status == 200
        assert introspected(service, revoked, client) == {"active": False}
        assert introspected(service, used, client) == {"active": False}

    def test_it_takes_the_scope(self, service: Service, client: Client) -> None:
        """Section 2.1: otherwise anybody could try out tokens."""
        token = granted(service, client)
        poor = new_client("poor", "token:issue token:revoke read")
        assert refusal(post(service, INTROSPECT, {"token": token}, poor.basic)) == INSUFFICIENT
        assert refusal(post(service, INTROSPECT, {"token": token})) == INVALID_CLIENT


class TestRevocation:
    """RFC 7009."""

    def test_a_token_is_revoked_once_and_again(self, service: Service, client: Client) -> None:
        """Section 2.2: an empty object each time."""
        token = granted(service, client)
        for _ in range(2):
            reply = post(service, REVOKE, {"token": token}, client.basic)
            assert (reply.status, reply.raw) == (200, b"{}")
        assert introspected(service, token, client) == {"active": False}

    def test_an_unknown_token_is_no_error(self, service: Service, client: Client) -> None:
        """Section 2.2. One that is forged from a valid token does not affect that."""
        token = granted(service, client)
        for text in ("unknown", Signer(generate_key()).issue(), token[:-4] + "AAAA", token + "=", "é" * 999):
            reply = post(service, REVOKE, {"token": text}, client.basic)
            assert (reply.status, reply.raw) == (200, b"{}")
        assert introspected(service, token, client)["active"] is True

    def test_its_own_token_takes_no_scope(self, service: Service, client: Client) -> None:
        """Section 2.1: the token was issued to this client."""
        plain = new_client("plain", "read")
        token = granted(service, plain)
        assert post(service, REVOKE, {"token": token}, plain.basic).status == 200
        assert introspected(service, token, client) == {"active": False}

    def test_anothers_token_takes_the_scope(self, service: Service, client: Client) -> None:
        """Without token:revoke it is refused, and the token stays valid."""
        plain, operator = new_client("plain", "read"), new_client("operator", "token:revoke")
        for token in (granted(service, client), Signer(KEY).issue(sub="42")):
            reply = post(service, REVOKE, {"token": token}, plain.basic)
            assert refusal(reply) == INSUFFICIENT
            assert introspected(service, token, client)["active"] is True
            assert post(service, REVOKE, {"token": token}, operator.basic).status == 200
            assert introspected(service, token, client) == {"active": False}

    def test_a_client_may_end_its_own_credential(self, service: Service) -> None:
        """That token is certainly its own. It cannot revoke another client's."""
        plain, other = new_client("plain", "read"), new_client("other", "read")
        assert refusal(post(service, REVOKE, {"token": other.secret}, plain.basic))[0] == 403
        assert post(service, REVOKE, {"token": plain.secret}, plain.basic).status == 200
        assert refusal(post(service, TOKEN, GRANT, plain.basic)) == INVALID_CLIENT
        assert post(service, TOKEN, GRANT, other.basic).status == 200

    def test_nobody_revokes_without_a_credential(self, service: Service, client: Client) -> None:
        """Section 2.1; the token stays valid."""
        token = granted(service, client)
        for form in ({"token": token}, {"token": token, "client_id": client.id}):
            assert refusal(post(service, REVOKE, form)) == INVALID_CLIENT
        assert introspected(service, token, client)["active"] is True


@pytest.mark.parametrize("path", ENDPOINTS)
class TestForm:
    """RFC 6749, section 3.2 and appendix B."""

    def test_nothing_but_a_form_is_read(self, service: Service, client: Client, path: str) -> None:
        """JSON, or a form with another content type, is an invalid request."""
        form = urlencode(FORMS[path]).encode()
        for body, declared in (
            (json.dumps(FORMS[path]).encode(), "application/json"),
            (form, "application/json"),
            (form, "text/plain"),
            (form, "multipart/form-data; boundary=x"),
            (form, ""),
        ):
            reply = post(service, path, body, {**client.basic, "Content-Type": declared})
            assert refusal(reply) == INVALID_REQUEST, declared
        declared = "Application/X-WWW-Form-Urlencoded; charset=UTF-8"
        assert post(service, path, form, {**client.basic, "Content-Type": declared}).status == 200

    def test_no_parameter_may_come_twice(self, service: Service, client: Client, path: str) -> None:
        """Neither with the same value, nor empty, nor if it is unknown."""
        form = list(FORMS[path].items())
        for more in (form, [(form[0][0], "other")], [(form[0][0], "")], [("a", "1"), ("a", "1")]):
            assert refusal(post(service, path, [*form, *more], client.basic)) == INVALID_REQUEST, more

    def test_unknown_parameters_and_hints_are_ignored(
        self, service: Service, client: Client, path: str
    ) -> None:
        """RFC 7662 and 7009, section 2.1: a wrong hint is no error."""
        for hint in ("access_token", "refresh_token", "nonsense", '"'):
            form = {**FORMS[path], "token_type_hint": hint, "resource": "https://api.example", "": "x"}
            assert post(service, path, form, client.basic).status == 200

    def test_an_empty_parameter_was_not_sent(self, service: Service, client: Client, path: str) -> None:
        """RFC 6749, section 3.2: it counts neither as a required one, nor as a second credential."""
        form = dict.fromkeys(FORMS[path], "")
        assert refusal(post(service, path, form, client.basic)) == INVALID_REQUEST
        form = {**FORMS[path], "client_id": "", "client_secret": "", "scope": "", "token_type_hint": ""}
        assert post(service, path, form, client.basic).status == 200

    def test_the_query_is_not_read(self, service: Service, client: Client, path: str) -> None:
        """Section 2.3.1 and RFC 6750, section 5.3: URLs end up in logs."""
        query = urlencode(FORMS[path])
        assert refusal(post(service, f"{path}?{query}", {}, client.basic)) == INVALID_REQUEST
        query = urlencode(client.form)
        assert refusal(post(service, f"{path}?{query}", FORMS[path])) == INVALID_CLIENT

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
    def test_other_methods_are_not_allowed(
        self, service: Service, client: Client, path: str, method: str
    ) -> None:
        """Section 3.2; 405 names the one that is allowed."""
        for headers in ({}, client.basic):
            reply = service.call(method, path, headers=headers)
            assert refusal(reply) == (405, "invalid_request")
            assert reply.headers["Allow"] == "POST"

    def test_a_body_has_limits(self, service: Service, client: Client, path: str) -> None:
        """64 KiB, and 64 parameters."""
        head = urlencode({**FORMS[path], "x": ""}).encode()
        just = head + b"x" * (64 * 1024 - len(head))
        assert post(service, path, just, client.basic).status == 200
        assert refusal(post(service, path, just + b"x", client.basic)) == (413, "invalid_request")
        many = [*FORMS[path].items(), *((f"p{number}", "1") for number in range(64))]
        assert refusal(post(service, path, many, client.basic)) == INVALID_REQUEST

    @pytest.mark.parametrize("body", [b"", b"\x00", b"[]", b"&&&"])
    def test_what_is_no_form_is_an_invalid_request(
        self, service: Service, client: Client, path: str, body: bytes
    ) -> None:
        """Whatever it contains."""
        assert refusal(post(service, path, body, client.basic)) == INVALID_REQUEST

    @pytest.mark.parametrize("bad", [b"\xff", b"%ff", b"%ed%a0%80"])
    def test_it_is_utf_8(self, service: Service, client: Client, path: str, bad: bytes) -> None:
        """Appendix B. This holds for unread parameters, too: if the encoding were guessed, two texts could
        become one."""
        form = urlencode(FORMS[path]).encode()
        assert post(service, path, form + b"&a=%C3%A9", client.basic).status == 200
        assert refusal(post(service, path, form + b"&a=" + bad, client.basic)) == INVALID_REQUEST


@pytest.mark.parametrize("path", ENDPOINTS)
class TestClientAuthentication:
    """RFC 6749, section 2.3."""

    def test_header_or_form(self, service: Service, client: Client, path: str) -> None:
        """Basic, the form, or Bearer; the id may be in the form as well."""
        form, name = FORMS[path], {"client_id": client.id}
        assert post(service, path, form, client.basic).status == 200
        assert post(service, path, form, client.bearer).status == 200
        assert post(service, path, {**form, **client.form}).status == 200
        assert post(service, path, {**form, **name}, client.basic).status == 200
        assert post(service, path, {**form, **name}, client.bearer).status == 200

    @pytest.mark.parametrize(
        "encode",
        [str, lambda text: quote(text, safe=""), lambda text: "".join(f"%{ord(char):02X}" for char in text)],
        ids=["raw", "some encoded", "all encoded"],
    )
    def test_basic_is_taken_percent_encoded_and_raw(
        self, service: Service, client: Client, path: str, encode: Callable[[str], str]
    ) -> None:
        """Section 2.3.1 requires encoding, and half of the clients do not encode."""
        headers = basic(f"{encode(client.id)}:{encode(client.secret)}")
        assert post(service, path, FORMS[path], headers).status == 200

    def test_header_and_form_together_are_refused(self, service: Service, client: Client, path: str) -> None:
        """Section 2.3: one method in each request, even if both are right."""
        form = {**FORMS[path], **client.form}
        for headers in (client.basic, client.bearer, basic("x:y")):
            assert refusal(post(service, path, form, headers)) == INVALID_REQUEST
        only_secret = {**FORMS[path], "client_secret": client.secret}
        assert refusal(post(service, path, only_secret, client.basic)) == INVALID_REQUEST

    def test_the_form_names_no_other_client(self, service: Service, client: Client, path: str) -> None:
        """A program in between might rely on the form."""
        other = new_client("other")
        for headers in (client.basic, client.bearer):
            form = {**FORMS[path], "client_id": other.id}
            assert refusal(post(service, path, form, headers)) == INVALID_CLIENT
        form = {**FORMS[path], "client_secret": client.secret}
        for name in ({"client_id": other.id}, {}):
            assert refusal(post(service, path, {**form, **name})) == INVALID_CLIENT

    def test_an_id_alone_proves_nothing(self, service: Service, client: Client, path: str) -> None:
        """There are no public clients."""
        form = {**FORMS[path], "client_id": client.id}
        assert refusal(post(service, path, form)) == INVALID_CLIENT

    def test_the_challenge_is_in_the_scheme_that_was_used(
        self, service: Service, client: Client, path: str
    ) -> None:
        """Section 5.2: Basic if there was none; for Bearer with an error (RFC 6750, section 3)."""
        wrong = Client(client.id, "wrong")
        form = FORMS[path]
        for reply, challenge in (
            (post(service, path, form, wrong.basic), 'Basic realm="signer"'),
            (post(service, path, form, {"Authorization": "bASIC !"}), 'Basic realm="signer"'),
            (post(service, path, {**form, **wrong.form}), 'Basic realm="signer"'),
            (post(service, path, form), 'Basic realm="signer"'),
            (post(service, path, form, {"Authorization": "Digest x"}), 'Basic realm="signer"'),
            (post(service, path, form, wrong.bearer), 'Bearer realm="signer", error="invalid_token"'),
        ):
            assert refusal(reply) == INVALID_CLIENT
            assert reply.headers.get_all("WWW-Authenticate") == [challenge]

    @pytest.mark.parametrize("way", ["basic", "form"])
    def test_a_wrong_secret_and_an_unknown_client_are_answered_alike(
        self, service: Service, client: Client, path: str, way: str
    ) -> None:
        """To the byte, so that nobody can find out which clients there are."""
        ended = new_client("ended")
        assert post(service, REVOKE, {"token": ended.secret}, ended.basic).status == 200
        answers = set()
        for wrong in (
            Client(client.id, "wrong"),
            Client(client.id, client.secret[:-4] + "AAAA"),
            Client(client.id, Signer(KEY).issue(sub=client.id, client_id=client.id)),
            Client("nobody", "wrong"),
            Client("nobody", client.secret),
            new_client(client.id, age=7200),
            ended,
        ):
            form = FORMS[path] | (wrong.form if way == "form" else {})
            answers.add(without_ids(raw(service, path, form, wrong.basic if way == "basic" else {})))
        (answer,) = answers
        assert answer.startswith(b"HTTP/1.1 401 ")


def raw(service: Service, path: str, form: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
    """The answer as it was sent."""
    body = urlencode(form)
    sent = {"Host": "x", **FORM, "Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return service.send_raw(f"POST {path} HTTP/1.1\r\n{lines}\r\n{body}".encode())


def without_ids(answer: bytes) -> bytes:
    """The answer without the parts that always differ."""
    return re.sub(rb"\r\n(date|x-request-id): [^\r]*", b"", answer)


MARK = "reflected"
LINE = f"{MARK}\r\nx-{MARK}: 1\r\n\r\n{MARK}"
#: What each test sends: parameters, then headers.
ECHOES: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"client_id": LINE, "client_secret": LINE}, {}),
    ({"client_id": f'{MARK}"', "client_secret": f'", error="{MARK}'}, {}),
    ({"token": LINE, "grant_type": LINE, "scope": LINE}, {}),
    ({"scope": f'read" {MARK}="\\{MARK}'}, {}),
    ({f"{MARK}\r\nx": LINE}, {}),
    ({}, basic(f"{LINE}:{LINE}")),
    ({}, basic(f"{MARK}%0d%0ax-{MARK}:%0d%0ax-{MARK}: 1")),
    ({}, {"Authorization": f'Basic realm="{MARK}"'}),
    ({}, {"Authorization": f'Bearer {MARK}", error="{MARK}'}),
    ({}, {"Authorization": f'{MARK} realm="{MARK}"'}),
    ({}, {"Content-Type": f"{MARK}/{MARK}"}),
    ({}, {"Host": f"{MARK}.example"}),
    ({}, {"Origin": f"https://{MARK}.example", "Access-Control-Request-Headers": MARK}),
    ({}, {"X-Request-ID": MARK, "Accept": f"{MARK}/*", "Cookie": f"{MARK}={MARK}"}),
]


@pytest.mark.parametrize(("form", "headers"), ECHOES)
@pytest.mark.parametrize("path", [*ENDPOINTS, METADATA])
def test_no_header_of_an_answer_repeats_the_request(
    service: Service, client: Client, path: str, form: dict[str, str], headers: dict[str, str]
) -> None:
    """Neither a value nor a header that the sender chose, whether the caller is accepted or not."""
    for credential in ({}, client.basic):
        sent = {**credential, **headers}
        if path == METADATA:
            reply = service.call("GET", f"{path}?{urlencode(form)}", headers=sent)
        else:
            reply = post(service, path, {**FORMS[path], **form}, sent)
        assert reply.status < 500
        # Except for a request's id, whose form is checked.
        said = [(name, value) for name, value in reply.headers.items() if name.lower() != "x-request-id"]
        assert MARK not in str(said).lower()
        assert {name.lower() for name in reply.headers} <= {
            "date", "cache-control", "pragma", "x-content-type-options", "content-length", "content-type",
            "x-request-id", "www-authenticate", "allow", "connection",
        }  # fmt: skip


class TestMetadata:
    """RFC 8414."""

    @pytest.mark.parametrize("host", ["", "example.org", "example.org:8443", "[::1]:8000", "[::1]"])
    def test_the_issuer_is_where_it_was_fetched(self, service: Service, host: str) -> None:
        """Section 3.3: clients compare the two."""
        host = host or f"127.0.0.1:{service.port}"
        document = service.call("GET", METADATA, headers={"Host": host}).json
        assert document["issuer"] == f"http://{host}"
        assert_complete(document, service, f"http://{host}")

    @pytest.mark.parametrize(
        "issuer", ["https://tokens.example.org", "https://example.org:8443/tokens", "http://[::1]:8000/a/b"]
    )
    def test_a_configured_issuer_is_told_whatever_the_host(
        self, tmp_path_factory: pytest.TempPathFactory, issuer: str
    ) -> None:
        """Behind a proxy, which may add a path before ours; introspection names the same issuer."""
        settings = {"SECRET_KEY": KEY, "ISSUER": issuer}
        client = new_client("app")
        with Service(tmp_path_factory.mktemp("issuer"), settings) as service:
            reply = service.call("GET", METADATA, headers={"Host": "internal:8000"})
            assert reply.headers["Content-Type"] == "application/json"
            assert reply.json["issuer"] == issuer
            assert_complete(reply.json, service, issuer)
            # Section 3.1: the issuer's path follows the well-known one.
            assert service.call("GET", METADATA + urlsplit(issuer).path).raw == reply.raw
            assert introspected(service, granted(service, client), client)["iss"] == issuer

    @pytest.mark.parametrize(
        "lines",
        [
            b"",
            b"Host: \r\n",
            b"Host: a\r\nHost: a\r\n",
            b"Host: a/b\r\n",
            b"Host: user@a\r\n",
            b"Host: a b\r\n",
            b"Host: a?b\r\n",
            b"Host: a:b\r\n",
            b'Host: a"b\r\n',
            b"Host: [::1\r\n",
            b"Host: \xe9\r\n",
        ],
    )
    def test_without_one_good_host_there_is_no_issuer(
        self, service: Service, client: Client, lines: bytes
    ) -> None:
        """400, for the document and for an active token. A value that cannot be an origin is not repeated."""
        end = b"Connection: close\r\n"
        answer = service.send_raw(b"GET " + METADATA.encode() + b" HTTP/1.1\r\n" + lines + end + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"issuer" not in answer
        body = b"token=" + granted(service, client).encode()
        answer = service.send_raw(
            b"POST /oauth/introspect HTTP/1.1\r\n" + lines + end
            + f"Authorization: Bearer {client.secret}\r\n".encode()
            + f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )  # fmt: skip
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"active" not in answer


def assert_complete(document: Any, service: Service, issuer: str) -> None:
    """The document has what RFC 8414, section 2, requires, nothing is empty (section 3.2), and everything is
    true."""
    assert all(value not in ([], "", None) for value in document.values())
    assert document["response_types_supported"] == ["none"]
    assert document["grant_types_supported"] == ["client_credentials"]
    for kind in ("token", "introspection", "revocation"):
        # A proxy removes the issuer's path before it forwards the request.
        url = document[f"{kind}_endpoint"]
        assert url.startswith(f"{issuer}/")
        path = url.removeprefix(issuer)
        methods = document[f"{kind}_endpoint_auth_methods_supported"]
        assert {"client_secret_basic", "client_secret_post"} <= set(methods)
        client = new_client("app")
        assert post(service, path, FORMS[path], client.basic).status == 200
        assert post(service, path, {**FORMS[path], **client.form}).status == 200
    page = document["service_documentation"].removeprefix(issuer)
    assert service.call("GET", page).status == 200


class TestListGone:
    """The list is gone, so no caller is accepted and nothing is acknowledged."""

    @pytest.mark.parametrize("loss", ["deleted", "replaced"])
    def test_all_three_are_temporarily_unavailable(
        self, tmp_path_factory: pytest.TempPathFactory, loss: str
    ) -> None:
        """503 with Retry-After (RFC 7009, section 2.2.1). Once the list is restored, it has no trace of those
        calls."""
        directory = tmp_path_factory.mktemp(loss)
        path, away = directory / "tokens.db", directory / "away.db"
        client = new_client("app")
        with Service(directory, {"SECRET_KEY": KEY}) as service:
            token = granted(service, client)
            path.rename(away)
            if loss == "replaced":
                empty_list(directory / "other.db").rename(path)
            time.sleep(2 * TRUST)
            for endpoint in ENDPOINTS:
                for headers in (client.basic, client.bearer):
                    reply = post(service, endpoint, {**GRANT, "token": token}, headers)
                    assert refusal(reply) == (503, "temporarily_unavailable"), endpoint
                    assert reply.headers["Retry-After"] == "1"
                    assert not re.search("sqlite|tokens.db|/", reply.json["error_description"])
                # To refuse a credential that is not ours, no list is needed.
                assert refusal(post(service, endpoint, FORMS[endpoint], basic("app:x")))[0] == 401
            away.replace(path)
            assert introspected(service, token, client)["active"] is True


def empty_list(path: Path) -> Path:
    """A list on which nothing is revoked."""
    open_store(f"sqlite:///{path}").close()
    return path


class TestDevelopment:
    """Without SECRET_KEY there is one caller, who can do everything and is no client."""

    def test_introspection_and_revocation_need_no_credential(self, development: Service) -> None:
        """Like the other calls of the service."""
        token = development.issue(sub="42")
        assert post(development, INTROSPECT, {"token": token}).json["active"] is True
        assert post(development, REVOKE, {"token": token}).json == {}
        assert post(development, INTROSPECT, {"token": token}).json == {"active": False}

    def test_an_access_token_needs_a_client(self, development: Service) -> None:
        """Only a credential can say which one."""
        assert refusal(post(development, TOKEN, GRANT)) == INVALID_CLIENT
        assert refusal(post(development, TOKEN, {**GRANT, "client_id": "app"})) == INVALID_CLIENT
        made = cli(development.directory, "client", "app", "--scope", "read", "--ttl", "1h")
        reply = post(development, TOKEN, GRANT, Client("app", made.stdout.strip()).basic)
        assert (reply.status, reply.json["scope"]) == (200, "read")
