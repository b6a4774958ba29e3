"""Errors that are our own mistake."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from signer.settings import Settings
from signer.web import create_app
from signer.web.routes.probes import Probes


def test_a_bug_is_500_with_its_request_id(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the same form, and without a word about what went wrong; the server logs the traceback."""

    async def broken(self: Probes, request: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Probes, "healthz", broken)
    environ = {"SECRET_KEY": "k" * 40, "DATABASE_URL": "memory://"}
    app = create_app(Settings.from_env(environ))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: Scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": [], "query_string": b""}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_call(app, scope, receive, send))
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["code"] == "internal_error"
    assert b"secret" not in sent[1]["body"]
    said = capfd.readouterr().err
    assert "status=500 " in said
    assert "code=internal_error " in said
    assert f"request_id={headers[b'x-request-id'].decode()}\n" in said
    assert "secret" not in said


async def _call(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
