"""The way from a path to its endpoint, compared with Starlette's own."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Scope
from support.service import KEY

from signer import Signer
from signer.settings import Settings
from signer.web import create_app
from signer.web.fastpath.dispatch import Dispatch
from signer.web.routes.entry import METHODS

TOKEN = Signer(KEY).issue(sub="42")
PATHS = [
    "/", "", "/app", "/app/token", "/app/token/", "/app/tokens", "/app/valid", "/app/valid/", f"/app/valid/{TOKEN}",
    f"/app/valid/{TOKEN}\n", f"/app/valid/{TOKEN}/", f"/app/valid//{TOKEN}", f"/app/valid/a/{TOKEN}", "/app/valid/é ?#",
    "/auth", "/auth/", "/auth/a", "/auth/a/b", "/authx", "/healthz", "/healthz/", "/readyz", "/metrics", "/docs",
    "/openapi.json", "/oauth/token", "/oauth/introspect", "/.well-known/oauth-authorization-server", "//app/token",
    "/app/clear/all/tokens", "/app/valid/{token}", "/auth/{path}", "{token}", "/app/valid/.", "/app/valid/..",
]  # fmt: skip


@pytest.fixture(scope="module")
def app() -> Dispatch:
    """The service's application, without the middlewares around it."""
    settings = {"SECRET_KEY": KEY, "DATABASE_URL": "memory://", "LOG_LEVEL": "critical"}
    surrounded: Any = create_app(Settings.from_env(settings))
    dispatch: Dispatch = surrounded.app
    return dispatch


def answer(app: Any, scope: Scope) -> tuple[Any, ...]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    asyncio.run(app(scope, receive, send))
    route = scope.get("route")
    return sent[0]["status"], sorted(sent[0]["headers"]), sent[1].get("body"), route.path if route else None


@pytest.mark.parametrize("method", [*METHODS, "PROPFIND", "get"])
@pytest.mark.parametrize("path", PATHS)
def test_both_ways_lead_to_the_same(app: Dispatch, method: str, path: str) -> None:
    """The same answer, to the byte, and the same route in log and metrics; also with a prefix."""
    for prefix in ("", "/tokens"):
        told = []
        for way in (app, app.app):
            scope: Scope = {
                "type": "http", "method": method, "path": prefix + path, "root_path": prefix, "query_string": b"",
                "headers": [(b"host", b"localhost")], "scheme": "http", "client": ("127.0.0.1", 1),
            }  # fmt: skip
            told.append(answer(way, scope))
        assert told[0] == told[1]


def test_the_routes_that_matter_take_it(app: Dispatch) -> None:
    """Otherwise the test above would compare Starlette with itself."""
    taken = {(method, place) for method, place in app._routes}
    assert {
        ("GET", "/app/valid/"),
        ("POST", "/app/token"),
        ("POST", "/app/consume"),
        ("GET", "/auth"),
    } <= taken
