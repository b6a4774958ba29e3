"""CORS_ORIGINS: pages of other origins that can read answers."""

from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from support.browser import needs_browser
from support.service import KEY, Reply, Service, cli, free_port
from support.serving import serving

PAGE = "https://app.example.org"
ASKS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}
SCOPES = "token:issue token:introspect token:revoke read"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("shared")
    made = cli(directory, "client", "tests", "--scope", SCOPES, "--ttl", "1d", SECRET_KEY=KEY)
    settings = {
        "SECRET_KEY": KEY, "CORS_ORIGINS": f"{PAGE}, http://localhost:3000", "AUTH_COOKIE": "session",
        "RATE_LIMIT": "1000/minute",
    }  # fmt: skip
    with Service(directory, settings, credential=made.stdout.strip()) as running:
        yield running


def preflight(service: Service, path: str, origin: str = PAGE) -> Reply:
    """The request that a browser sends first, before one that a form could not send."""
    asked = {"Origin": origin, "Authorization": "", **ASKS}
    return service.call("OPTIONS", path, headers=asked)


@pytest.mark.parametrize(
    "path", ["/app/token", "/app/valid/x", "/oauth/token", "/.well-known/oauth-authorization-server"]
)
def test_a_preflight_of_a_listed_origin_is_answered(shared: Service, path: str) -> None:
    """With method and headers, and without permission for cookies."""
    reply = preflight(shared, path)
    assert reply.status == 200
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in reply.headers["Access-Control-Allow-Methods"]
    assert "authorization" in reply.headers["Access-Control-Allow-Headers"].lower()
    assert "Access-Control-Allow-Credentials" not in reply.headers
    assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example.org", f"{PAGE}.evil.example", "null", f"{PAGE}:444", "http://app.example.org"],
)
def test_any_other_origin_gets_nothing(shared: Service, origin: str) -> None:
    """Scheme, host and port must be exactly the same."""
    refused = preflight(shared, "/app/token", origin)
    assert refused.status == 400
    assert "Access-Control-Allow-Origin" not in refused.headers
    answer = shared.call("POST", "/app/token", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "call", [("POST", "/app/token", {}), ("POST", "/app/token", {"ttl": -1}), ("GET", "/app/valid/x", None)]
)
def test_answers_and_errors_may_be_read(shared: Service, call: tuple[str, str, Any]) -> None:
    """Also the headers that a client needs; a cache stores the answers for each origin apart."""
    method, path, body = call
    reply = shared.call(method, path, body, {"Origin": PAGE})
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE
    assert "X-Request-ID" in reply.headers["Access-Control-Expose-Headers"]
    assert "RateLimit" in reply.headers["Access-Control-Expose-Headers"]
    assert reply.headers["Vary"] == "Origin"


@pytest.mark.parametrize("path", ["/app/../auth", "/app/%2e%2e/auth", "/oauth/../auth", "/app//auth"])
def test_a_path_that_others_may_read_as_another_is_not_shared(shared: Service, path: str) -> None:
    """A proxy that resolves the path first would read /auth."""
    reply = preflight(shared, path)
    assert reply.status in (404, 405)
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/admin", "/auth/app/token"])
def test_a_preflight_never_passes_a_gateway(shared: Service, path: str) -> None:
    """A gateway that uses the browser's own method and headers (Envoy) would forward it, with or without a
    token. Any page could then make an application answer OPTIONS, or whatever a method override turns that
    into."""
    reply = preflight(shared, path)
    assert reply.status == 401
    assert "Access-Control-Allow-Origin" not in reply.headers


def test_it_is_off_by_default(production: Service) -> None:
    """No page of another origin can read anything."""
    assert preflight(production, "/app/token").status == 405
    reply = production.call("POST", "/app/token", headers={"Origin": PAGE})
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]


def test_the_development_service_stays_for_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It refuses origins of other hosts, whether they are listed or not."""
    settings = {"CORS_ORIGINS": f"{PAGE},http://localhost:3000"}
    with Service(tmp_path_factory.mktemp("development"), settings) as service:
        assert preflight(service, "/app/token", "http://localhost:3000").status == 200
        assert service.call("POST", "/app/token", headers={"Origin": "http://localhost:3000"}).status == 200
        assert service.call("POST", "/app/token", headers={"Origin": PAGE}).status == 403


ASK = """
const [url, credential, done] = arguments;
fetch(url, {method: "POST", body: '{"sub": "42"}', headers: {
    "Authorization": "Bearer " + credential, "Content-Type": "application/json"}})
    .then(async (answer) => done([answer.status, await answer.json(), answer.headers.get("X-Request-ID")]))
    .catch((error) => done(String(error)));
"""


@needs_browser
def test_a_page_in_a_browser_may_or_may_not(
    chromium: Chrome, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Chromium sends a preflight request first, and obeys the answer."""
    directory = tmp_path_factory.mktemp("browser")
    made = cli(directory, "client", "tests", "--scope", SCOPES, "--ttl", "1d", SECRET_KEY=KEY)
    page = Starlette(routes=[Route("/", HTMLResponse("<title>page</title>"))])
    with serving(page) as port, serving(page) as other:
        settings = {"SECRET_KEY": KEY, "CORS_ORIGINS": f"http://127.0.0.1:{port}"}
        with Service(directory, settings, port=free_port()) as service:
            url = f"http://127.0.0.1:{service.port}/app/token"
            chromium.get(f"http://127.0.0.1:{port}/")
            status, answer, request_id = chromium.execute_async_script(ASK, url, made.stdout.strip())
            assert (status, answer["status_code"]) == (200, 200)
            service.wait_for_log(f"request_id={request_id}")  # the line is written after the answer
            chromium.get(f"http://127.0.0.1:{other}/")
            assert "Failed to fetch" in chromium.execute_async_script(ASK, url, made.stdout.strip())
            service.wait_for_log("method=OPTIONS", 2)
            assert service.log.count("method=POST") == 1
