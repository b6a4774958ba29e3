"""The configurations in this folder, each in its gateway, in front of the real service."""

import http.client
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from urllib.parse import unquote

import pytest
from deploy.gateways import GATEWAYS, Application, Envoy, Gateway, HAProxy, Header, Nginx, Seen
from support.clock import HANG
from support.service import KEY, Reply, Service, cli

SETTINGS = {"SECRET_KEY": KEY, "AUTH_COOKIE": "session"}
SCOPES = "token:issue token:introspect token:revoke admin administrator read"
NAMES = "Subject", "Scope", "Id", "Client"
METHODS = "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW"
#: Ways to spell /admin, or to get around it, that some gateway or application reads as /admin.
PATHS = (
    "/admin", "/admin/", "/admin/x", "/admin.json", "/admin?x", "/admin;x=1", "/admin%20", "/admin%2f", "/admin%00",
    "/ADMIN", "/Admin/x", "/%61dmin", "/%41DMIN", "/adm%69n", "/%2561dmin", "/%u0061dmin", "/%c1%a1dmin",
    "/admin/../admin", "/admin/.", "/./admin", "/../admin", "/x/../admin", "/x/%2e%2e/admin", "/x/%2E./admin",
    "/x/..%2fadmin", "/x%2f..%2fadmin", "/x/..%5cadmin", "/x/..%255cadmin", "/x/..\\admin", "\\admin", "/\\admin",
    "//admin", "///admin", "/x//../admin", "//x/../admin", "/%2fadmin", "/;/admin", "/;x/admin", "/x/..;/admin",
    "/public/../admin", "/public/..%2fadmin", "/public/%2e%2e/admin", "/public/..;/admin", "/public/..\\admin",
    "/public/%252e%252e/admin", "/public/..%252fadmin", "/public/%c0%ae%c0%ae/admin", "/public//../admin",
    "/public/x/../../admin", "/public/x?/../../admin", "/public/x#/../../admin", "/#/../admin", "/admin#x",
    "/admin/../public/x", "/admin/../x", "/admin%2f../public/x", "/admin/..%2fx", "/admin/..;/public/x",
    "http://127.0.0.1/admin", "http://elsewhere/admin", "http://elsewhere//admin", "http://elsewhere/public/../admin",
    "https://elsewhere/ADMIN", "http://elsewhere/public/", "*", "admin",
)  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service that also accepts cookies, and a credential that may hand out `admin`."""
    directory = tmp_path_factory.mktemp("service")
    made = cli(directory, "client", "tests", "--scope", SCOPES, "--ttl", "1d", SECRET_KEY=KEY)
    with Service(directory, SETTINGS, credential=made.stdout.strip()) as running:
        yield running


@pytest.fixture(scope="module")
def everything() -> Iterator[Application]:
    """The application behind all gateways."""
    with Application() as running:
        yield running


@pytest.fixture
def application(everything: Application) -> Application:
    """The application, with nothing received yet."""
    everything.received.clear()
    return everything


@pytest.fixture(scope="module", params=GATEWAYS, ids=lambda kind: kind.__name__.lower())
def gateway(
    request: pytest.FixtureRequest,
    service: Service,
    everything: Application,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """Each gateway in turn, with its configuration."""
    kind: type[Gateway] = request.param
    if kind.program() is None:
        pytest.skip(f"needs {' or '.join(kind.programs)}, with the modules that its configuration names")
    directory = tmp_path_factory.mktemp(kind.__name__)
    made = cli(directory, "client", "apache", "--scope", "token:introspect", "--ttl", "1d", SECRET_KEY=KEY)
    port = everything.server_address[1]
    with kind(directory, service.port, port, made.stdout.strip()) as running:
        yield running


@pytest.fixture
def token(service: Service) -> str:
    return service.issue(sub="42", scope="read admin")


@pytest.fixture
def down(service: Service, token: str) -> Iterator[None]:
    """The service does not run."""
    service.stop()
    yield
    service.__enter__()


@pytest.fixture
def silent(service: Service, token: str) -> Iterator[None]:
    """The service accepts connections and answers nothing, until it is killed."""
    os.killpg(service.process.pid, signal.SIGSTOP)
    yield
    service.kill()
    service.__enter__()


def bearer(token: str) -> Header:
    return "Authorization", f"Bearer {token}"


def seen(reply: Reply) -> Seen:
    """The request as the application received it."""
    assert reply.status == 200, (reply.status, reply.raw)
    return Seen(**reply.json | {"headers": [tuple(pair) for pair in reply.json["headers"]]})


def chunked(target: str, token: str, announced: str = "", trailers: str = "") -> bytes:
    """A request with a body in chunks."""
    return (
        f"POST {target} HTTP/1.1\r\nHost: a.example.org\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        f"Transfer-Encoding: chunked\r\n{announced}\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n{trailers}\r\n"
    ).encode()


def http2(headers: dict[str, str], body: bytes, trailers: dict[str, str]) -> bytes:
    """A request in HTTP/2 without TLS (RFC 9113, RFC 7541), with trailers."""

    def frame(kind: int, flags: int, payload: bytes = b"") -> bytes:
        # All frames but SETTINGS (4) are of stream 1.
        return len(payload).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, kind != 4]) + payload

    def packed(fields: dict[str, str]) -> bytes:
        texts = (text.encode() for field in fields.items() for text in field)
        pairs = [bytes([len(text)]) + text for text in texts]
        return b"".join(b"\0" + name + value for name, value in zip(pairs[::2], pairs[1::2], strict=True))

    end_headers, end_stream = 4, 1
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0)
        + frame(1, end_headers, packed(headers))
        + frame(0, 0, body)
        + frame(1, end_headers | end_stream, packed(trailers))
    )


class TestAdmission:
    @pytest.mark.parametrize("target", ["/", "/x/y?z", "/admin", "/admin/x"])
    def test_no_token(self, gateway: Gateway, application: Application, target: str) -> None:
        """401 with a challenge; the application receives nothing."""
        reply = gateway.call("GET", target)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
        assert application.received == []

    def test_any_method_needs_one(self, gateway: Gateway, application: Application) -> None:
        """Also one that a list of methods would forget."""
        for method in METHODS:
            assert gateway.call(method, "/").status in range(400, 600), method
        assert application.received == []

    def test_a_token(self, gateway: Gateway, service: Service) -> None:
        """The application receives the request as it was sent, and the name of its sender."""
        token = service.issue(sub="42", scope="read admin")
        sent = ("X-Other", "kept"), ("Host", "app.example.org")
        reply = gateway.call("GET", "/x/y%20z?a=/../b&c=%2e", bearer(token), *sent)
        request = seen(reply)
        assert (request.method, request.target) == ("GET", "/x/y%20z?a=/../b&c=%2e")
        arrived = [(name.lower(), value) for name, value in request.headers]
        assert {(name.lower(), value) for name, value in sent} < set(arrived)
        assert not [name for name in reply.headers if name.lower().startswith("x-token")]
        jti = service.call("POST", "/app/valid", {"token": token}).json["claims"]["jti"]
        assert request.identity == {
            "subject": ["42"], "scope": ["read admin"], "id": [jti], "client": ["tests"],
        }  # fmt: skip

    @pytest.mark.parametrize("sub", ["a b", "ü/%41", "x\u3000y", 'a"b,c;d=\\'])
    def test_any_subject(self, gateway: Gateway, service: Service, sub: str) -> None:
        """Arrives percent-encoded, as visible ASCII that decodes to exactly this subject."""
        (said,) = seen(gateway.call("GET", "/", bearer(service.issue(sub=sub)))).identity["subject"]
        assert unquote(said, errors="strict") == sub
        assert all(0x21 <= ord(character) < 0x7F for character in said)

    def test_scope(self, gateway: Gateway, service: Service, application: Application) -> None:
        """/admin needs this word in the token's scope; without it, 403."""
        for scope, status in ((None, 403), ("read", 403), ("administrator read", 403), ("read admin", 200)):
            wanted = {"scope": scope} if scope else {}
            assert gateway.call("GET", "/admin", bearer(service.issue(**wanted))).status == status, scope
        assert len(application.received) == 1

    def test_purpose(self, gateway: Gateway, service: Service, application: Application) -> None:
        """A token for another purpose is refused everywhere, and so is the credential of a client."""
        for token in (service.issue(purpose="reset", scope="admin"), service.credential or ""):
            for target in ("/", "/admin"):
                assert gateway.call("GET", target, bearer(token)).status in (401, 403)
        assert application.received == []

    def test_revoked(self, gateway: Gateway, service: Service, application: Application) -> None:
        """401 at once, even if the gateway accepted it a moment ago."""
        token = service.issue(sub="42")
        assert gateway.call("GET", "/", bearer(token)).status == 200
        service.call("POST", "/app/revoke", {"token": token})
        reply = gateway.call("GET", "/", bearer(token))
        assert (reply.status, len(application.received)) == (401, 1)
        assert "invalid_token" in reply.headers["WWW-Authenticate"]

    def test_used_up(self, gateway: Gateway, service: Service, application: Application) -> None:
        """A token with a number of uses is no session, because a gateway would not count."""
        token = service.issue(max_uses=1)
        assert gateway.call("GET", "/", bearer(token)).status == 401
        assert application.received == []

    def test_two_tokens(self, gateway: Gateway, service: Service, application: Application) -> None:
        """Two tokens are refused, because the application might read the one that was not checked."""
        pair = bearer(service.issue(sub="1")), bearer(service.issue(sub="2"))
        for tokens in (pair, pair[::-1], (pair[0], bearer("x")), (bearer("x"), pair[0])):
            assert gateway.call("GET", "/", *tokens).status in (400, 401)
        assert application.received == []

    def test_cookie(self, gateway: Gateway, service: Service, application: Application) -> None:
        """With AUTH_COOKIE a session can be in a cookie; mod_oauth2 is configured for headers only."""
        session = "Cookie", f"theme=dark; session={service.issue(sub='42')}"
        reply = gateway.call("GET", "/", session)
        if gateway.asks:
            assert seen(reply).identity["subject"] == ["42"]
            assert gateway.call("GET", "/admin", session).status == 403
        else:
            assert (reply.status, application.received) == (401, [])

    def test_elsewhere(self, gateway: Gateway, service: Service, application: Application) -> None:
        """A token in the query or in a form does not count: these end up in logs."""
        token = service.issue(scope="admin")
        form = "Content-Type", "application/x-www-form-urlencoded"
        for name in ("access_token", "token", "session", "authorization"):
            said = f"{name}={token}"
            assert gateway.call("GET", f"/?{said}").status == 401
            assert gateway.call("POST", f"/admin?{said}", form, body=said.encode()).status == 401
            assert gateway.call("GET", "/", (name.replace("_", "-"), token)).status == 401
        assert application.received == []


class TestDemands:
    @pytest.mark.parametrize(
        "query",
        [
            "purpose=access&scope=read", "&purpose=access&scope=read", "&of=x&scope=", "scope=", "&scope=read&",
            "scope=read%20admin", "purpose=&of=", "x=%26",
        ],
    )  # fmt: skip
    def test_a_clients_query_lifts_none(
        self, gateway: Gateway, service: Service, application: Application, query: str
    ) -> None:
        """Also where the gateway appends the query to the URL of /auth (Envoy)."""
        assert gateway.call("GET", f"/admin?{query}", bearer(service.issue(scope="read"))).status == 403
        reset = bearer(service.issue(purpose="reset", scope="read"))
        assert gateway.call("GET", f"/?purpose=reset&{query}", reset).status in (401, 403)
        assert application.received == []

    def test_the_question_is_not_for_clients(self, gateway: Gateway, service: Service) -> None:
        """The internal paths of nginx.conf cannot be called; for other gateways they are ordinary paths."""
        for target in ("/.signer/access", "/.signer/admin"):
            reply = gateway.call("GET", target, bearer(service.issue(scope="admin")))
            assert reply.status == (404 if isinstance(gateway, Nginx) else 200)

    def test_a_clients_query_adds_some(self, gateway: Gateway, service: Service) -> None:
        """Only with Envoy."""
        token = bearer(service.issue(scope="read"))
        for query, status in (("x&scope=other", 403), ("x&aud=other", 401), ("x&scope=read", 200)):
            expected = status if isinstance(gateway, Envoy) else 200
            assert gateway.call("GET", f"/?{query}", token).status == expected, query

    def test_forwarding_headers_change_none(
        self, gateway: Gateway, service: Service, application: Application
    ) -> None:
        """These headers are how a proxy describes the request to signer, or to an application."""
        token = bearer(service.issue(scope="read"))
        for path in ("/public/x", "/admin", "/auth?purpose=access"):
            lies = [
                *((f"X-Original-{name}", path) for name in ("URL", "URI")),
                *((f"X-Forwarded-{name}", path) for name in ("Uri", "Path", "Prefix")),
                *((name, path) for name in ("X-Rewrite-URL", "X-Envoy-Original-Path")),
                *(
                    (f"X-Forwarded-{name}", "elsewhere")
                    for name in ("For", "Host", "Server", "Port", "Proto")
                ),
                *(("X-Forwarded-Method", "OPTIONS"), ("X-Original-Method", "OPTIONS")),
                *(("Forwarded", "for=127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("Via", "1.1 proxy")),
            ]
            assert gateway.call("GET", "/", *lies).status == 401
            assert gateway.call("GET", "/admin", *lies).status == 401
            assert gateway.call("GET", "/admin", token, *lies).status == 403
            assert application.received == []
            request = seen(gateway.call("GET", "/public/y", *lies))
            assert {reading[:7] for reading in request.readings} == {"/public"}
            assert "elsewhere" not in str(request.headers)
            application.received.clear()

    def test_no_spelling_of_a_path(
        self, gateway: Gateway, service: Service, application: Application
    ) -> None:
        """Reaches the application without the scope that any reading of the path needs."""
        token = bearer(service.issue(scope="read"))
        for target in PATHS:
            for sent in ((), (token,)):
                # Some close the connection and send no answer.
                with suppress(http.client.HTTPException):
                    gateway.call("GET", target, *sent)
                readings = {path for request in application.received for path in request.readings}
                assert not [path for path in readings if path.startswith("/admin")], target
                assert sent or all(path.startswith("/public") for path in readings), target
                application.received.clear()

    def test_no_bytes_in_a_path(self, gateway: Gateway, service: Service, application: Application) -> None:
        """These bytes are not encoded, and some programs read them as dots and letters."""
        head = f"HTTP/1.1\r\nHost: a.example.org\r\nConnection: close\r\nAuthorization: Bearer {service.issue()}\r\n\r\n"
        for target in (b"/public/\xc0\xae\xc0\xae/admin", b"/\xc1\xa1dmin", b"/x/\xc0\xae./admin"):
            gateway.send_raw(b"GET " + target + b" " + head.encode())
            readings = {path for request in application.received for path in request.readings}
            assert not [path for path in readings if path.startswith("/admin")], target

    def test_one_spelling(self, gateway: Gateway, service: Service, application: Application) -> None:
        """Only one spelling of a path is accepted: others are refused, or normalised to it (Envoy)."""
        token = bearer(service.issue())
        for target in (
            "//x/y",
            "/x//y",
            "/x/../x/y",
            "/x/./y",
            "/x/y/.",
            "/%78/y",
            "/x;/y",
            "/x%2fy",
            "/x\\y",
        ):
            status = gateway.call("GET", target, token).status
            assert status in (400, 404) or isinstance(gateway, Envoy), target
            assert {request.target for request in application.received} <= {"/x/y", "/x/y/"}, target
            application.received.clear()

    @pytest.mark.parametrize(
        "target", ["/public/x", "/public/x%20y?z=/../a", "/x.y/.z/...", "/%C3%A9?a=//b", "/a:b@c+d,e"]
    )
    def test_plain_paths(self, gateway: Gateway, service: Service, target: str) -> None:
        """They arrive as they were sent."""
        assert seen(gateway.call("GET", target, bearer(service.issue()))).target == target


class TestIdentity:
    """Only the gateway sets X-Token-*: no header of the client with such a name reaches the application."""

    @pytest.mark.parametrize("spelling", ["X-Token-{}", "x-token-{}", "X-TOKEN-{}"])
    @pytest.mark.parametrize("sub", ["42", None])
    def test_forged(self, gateway: Gateway, service: Service, spelling: str, sub: str | None) -> None:
        """Neither beside the values of a token, nor in place of values that the token does not have."""
        forged = [(spelling.format(name), "forged") for name in NAMES] * 2
        token = service.issue(scope="admin", **({"sub": sub} if sub else {}))
        for target in ("/", "/admin"):
            identity = seen(gateway.call("GET", target, *forged, bearer(token), *forged)).identity
            assert "forged" not in str(identity)
            assert identity.get("subject", []) == ([sub] if sub else [])
            assert (identity["scope"], identity["client"]) == (["admin"], ["tests"])

    @pytest.mark.parametrize(
        "spelling",
        [
            "X_Token_{}",
            "X-Token_{}",
            "X_Token-{}",
            "x_token_{}",
            "X.Token.{}",
            "X-Token.{}",
            "X.Token-{}",
            "X_TOKEN.{}",
            "X.Token_{}",
        ],
    )
    def test_forged_in_another_spelling(
        self, gateway: Gateway, service: Service, application: Application, spelling: str
    ) -> None:
        """In a spelling that some application reads as the same name."""
        forged = [(spelling.format(name), "forged") for name in NAMES]
        token = bearer(service.issue())
        for target in ("/", "/public/x"):
            gateway.call("GET", target, *forged, token, *forged)
            assert "forged" not in str(application.received)
        gateway.call("GET", "/public/x", *forged)
        assert "forged" not in str(application.received)

    def test_without_a_token(self, gateway: Gateway, service: Service) -> None:
        """Where no token is needed, the application gets no name."""
        forged = [(f"X-Token-{name}", "forged") for name in NAMES]
        for more in ((), (bearer(service.issue(sub="42")),)):
            assert seen(gateway.call("GET", "/public/x", *forged, *more)).identity == {}

    @pytest.mark.parametrize("first", ["close, ", "", "keep-alive, "])
    def test_dropped(self, gateway: Gateway, service: Service, first: str) -> None:
        """Connection names headers that a proxy must not pass on. A client cannot remove the gateway's
        headers with it."""
        names = [f"x-token-{name.lower()}" for name in NAMES]
        nominations = ("Connection", first + ", ".join(names)), *(("Connection", name) for name in names)
        token = service.issue(sub="42", scope="read")
        for sent in (nominations, nominations[:1], nominations[::-1]):
            identity = seen(gateway.call("GET", "/", bearer(token), *sent)).identity
            assert (identity["subject"], identity["scope"], identity["client"]) == (
                ["42"],
                ["read"],
                ["tests"],
            )
            assert len(identity["id"]) == 1

    def test_in_trailers(self, gateway: Gateway, service: Service, application: Application) -> None:
        """Some servers treat what follows a body as headers."""
        trailers = "".join(f"X-Token-{name}: forged\r\n" for name in NAMES)
        token = service.issue()
        for target in ("/", "/public/x"):
            for announced in ("", "Trailer: X-Token-Subject, X-Token-Id\r\nTE: trailers\r\n"):
                gateway.send_raw(chunked(target, token, announced, trailers))
                assert "forged" not in str(application.received)

    def test_in_trailers_of_http2(self, gateway: Gateway, application: Application) -> None:
        """Which some gateways speak without configuration."""
        headers = {":method": "POST", ":scheme": "http", ":path": "/public/x", ":authority": "a.example.org"}
        gateway.send_raw(http2(headers, b"abc", {"x-token-subject": "forged"}))
        assert "forged" not in str(application.received)
        assert len(application.received) == isinstance(gateway, Envoy)


class TestRequests:
    def test_a_body(self, gateway: Gateway, service: Service, application: Application) -> None:
        """It reaches the application only with a token."""
        body = "x=1\n" * 50_000
        token = bearer(service.issue(sub="42"))
        request = seen(gateway.call("POST", "/x", token, body=body.encode()))
        assert (request.method, request.body, request.identity["subject"]) == ("POST", body, ["42"])
        assert gateway.call("POST", "/x", body=b"x").status == 401
        assert gateway.call("POST", "/admin", token, body=b"x").status == 403
        assert len(application.received) == 1

    def test_a_body_in_chunks(self, gateway: Gateway, service: Service, application: Application) -> None:
        """It does, too; but HAProxy accepts none (haproxy.cfg says why)."""
        takes = not isinstance(gateway, HAProxy)
        status = b" 401 " if takes else b" 411 "
        assert status in gateway.send_raw(chunked("/x", "none")).splitlines()[0]
        assert application.received == []
        gateway.send_raw(chunked("/x", service.issue()))
        assert [request.body for request in application.received] == ["abcde"] * takes

    @pytest.mark.parametrize("protocol", ["h2c", "websocket"])
    def test_another_protocol(
        self, gateway: Gateway, service: Service, application: Application, protocol: str
    ) -> None:
        """It is refused: inside another protocol no gateway would check the client."""
        wish = (
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("Upgrade", protocol),
            ("HTTP2-Settings", "AAMAAABk"),
        )
        gateway.call("GET", "/", bearer(service.issue()), *wish)
        gateway.call("GET", "/public/x", *wish)
        wished = [name.lower() for request in application.received for name, _ in request.headers]
        assert "upgrade" not in wished

    def test_the_next_request(self, gateway: Gateway, service: Service, application: Application) -> None:
        """A second request on the same connection is checked again."""
        head = "GET /{} HTTP/1.1\r\nHost: a.example.org\r\n"
        with_token = head.format("1") + f"Authorization: Bearer {service.issue()}\r\n\r\n"
        answers = gateway.send_raw((with_token + head.format("2") + "\r\n").encode())
        assert (answers.count(b"HTTP/1.1 200 "), answers.count(b"HTTP/1.1 401 ")) == (1, 1)
        assert [request.target for request in application.received] == ["/1"]


class TestFailure:
    """If a request cannot be checked, it is refused."""

    @pytest.mark.usefixtures("down")
    def test_down(self, gateway: Gateway, application: Application, token: str) -> None:
        """The service is stopped."""
        assert gateway.call("GET", "/", bearer(token)).status in range(400, 600)
        assert application.received == []

    @pytest.mark.usefixtures("silent")
    def test_silent(self, gateway: Gateway, application: Application, token: str) -> None:
        """The service accepts the connection and does not answer."""
        # mod_oauth2 waits for 15 seconds, which cannot be configured.
        patience = HANG if gateway.asks else 3
        with nullcontext() if gateway.asks else suppress(TimeoutError):
            assert gateway.call("GET", "/", bearer(token), timeout=patience).status in range(400, 600)
        assert application.received == []

    @pytest.mark.skipif(HAProxy.program() is None, reason="needs haproxy")
    def test_a_broken_script(
        self, service: Service, application: Application, token: str, tmp_path: Path
    ) -> None:
        """When Lua fails, HAProxy continues with its next rule, which refuses the request."""

        class Broken(HAProxy):
            def shipped(self, name: str, changes: dict[str, str] | None = None) -> Path:
                broken = {
                    "local function ask(txn, demands)": "local function ask(txn, demands) error('broken')"
                }
                return super().shipped(name, broken if name.endswith(".lua") else changes)

        with Broken(tmp_path, service.port, application.server_address[1]) as gateway:
            assert gateway.call("GET", "/", bearer(token)).status == 503
            assert gateway.call("GET", "/admin", bearer(token)).status == 503
            assert application.received == []
            assert gateway.call("GET", "/public/x").status == 200
