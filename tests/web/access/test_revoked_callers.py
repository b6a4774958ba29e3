"""A client that is revoked during its call gets nothing that outlives the revocation."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.clock import eventually
from support.service import KEY, Service, client

from signer import Signer

SCOPES = "token:issue token:introspect token:revoke token:purge read"
_names = (f"client-{number}" for number in count())


def credential(directory: Path, name: str) -> str:
    return client(name, SCOPES)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("revoked")
    with Service(directory, {"SECRET_KEY": KEY}, credential=credential(directory, "operator")) as running:
        yield running


def held_back(
    service: Service, path: str, content: tuple[bytes, str], shown: str, then: Callable[[], object]
) -> tuple[int, bytes]:
    """The answer to a request whose body is sent only after the service has accepted its caller, and after
    `then`."""
    body, media_type = content
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {shown}\r\nConnection: close\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # the service reads the body now
        then()
        connection.sendall(body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head_of_answer, _, told = answer.partition(b"\r\n\r\n")
    return int(head_of_answer.split()[1]), told


BODIES: dict[str, Callable[[Signer, str], Any]] = {
    "/app/token": lambda signer, name: {"sub": "42", "scope": "read"},
    "/app/tokens": lambda signer, name: {"tokens": [{}] * 100},
    "/app/code": lambda signer, name: {"sub": "42"},
    "/app/rotate": lambda signer, name: {"token": signer.issue(client_id=name)},
    "/app/consume": lambda signer, name: {"token": signer.issue()},
    "/app/revoke": lambda signer, name: {"token": signer.issue()},
    "/app/code/verify": lambda signer, name: {
        "token": signer.issue(purpose="signer:code:access", sub="1"),
        "code": "123456",
    },
}


#: The token in the request is revoked, too.
REFUSALS = {("/app/rotate", "client_id"): 409}


@pytest.mark.parametrize("how", ["client_id", "token"])
@pytest.mark.parametrize("path", [*BODIES, "/oauth/token"])
def test_a_body_that_is_held_back_changes_nothing_after_its_client_was_revoked(
    service: Service, path: str, how: str
) -> None:
    """The credential was valid when the head arrived, and no longer when the change would be made."""
    name = next(_names)
    shown = credential(service.directory, name)
    signer = Signer(KEY)
    content = (b"grant_type=client_credentials&scope=read", "application/x-www-form-urlencoded")
    if path in BODIES:
        content = (json.dumps(BODIES[path](signer, name)).encode(), "application/json")
    named = name if how == "client_id" else shown

    def revoke() -> None:
        assert service.call("POST", "/app/revoke", {how: named}).status == 200

    status, answer = held_back(service, path, content, shown, revoke)
    assert status == REFUSALS.get((path, how), 401), answer
    assert b"sgt_" not in answer


def stream(service: Service, shown: str, tokens: list[str]) -> None:
    """Collect the tokens that a client gets, one call after the other, until it is refused."""
    for number in range(2000):
        body: Any = {"sub": "42"} if number % 2 else {"tokens": [{"sub": "42"}, {}]}
        reply = service.call("POST", "/app/token" if number % 2 else "/app/tokens", body, credential=shown)
        if reply.status != 200:
            assert reply.status == 401, reply.raw
            break
        told = [reply.json] if number % 2 else reply.json["tokens"]
        tokens += [each["token"] for each in told if each.get("token")]


def given(revoking: Service, issuing: Service) -> list[str]:
    """The tokens that a client got from one node until it was revoked on another."""
    name = next(_names)
    shown = credential(revoking.directory, name)
    tokens: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, issuing, shown, tokens) for _ in range(7)]
        eventually(lambda: len(tokens) > 20)  # some calls are under way then
        assert revoking.call("POST", "/app/revoke", {"client_id": name}).status == 200
        for each in streams:
            each.result()
    return tokens


def are_refused(service: Service, tokens: list[str]) -> bool:
    """Whether the service refuses all of them."""
    lots = [tokens[start : start + 1000] for start in range(0, len(tokens), 1000)]
    replies = [service.call("POST", "/app/valid", {"tokens": lot}).json for lot in lots]
    return not any(result["status"] for reply in replies for result in reply["results"])


def test_no_token_of_a_running_stream_survives(tmp_path: Path) -> None:
    """Also if issuing waits for the disk of the audit trail."""
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": str(tmp_path / "audit.log"), "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, credential=credential(tmp_path, "operator")) as service:
        service.wait_until_started(2)
        for _ in range(3):
            tokens = given(service, service)
            assert tokens
            assert are_refused(service, tokens)


@pytest.mark.slow
def test_no_token_of_another_node_survives(tmp_path: Path, engine_url: str) -> None:
    """Also if that node's copy of the list may be five seconds old."""
    settings = {"SECRET_KEY": KEY, "DATABASE_URL": engine_url, "REVOCATION_STALENESS_SECONDS": "5"}
    with ExitStack() as stack:
        nodes = []
        for number in range(2):
            directory = tmp_path / str(number)
            directory.mkdir()
            shown = credential(directory, "operator")
            nodes.append(stack.enter_context(Service(directory, settings, credential=shown)))
        for _ in range(3):
            tokens = given(*nodes)
            assert tokens
            eventually(partial(are_refused, nodes[0], tokens), 60)  # the copy may be as old as that
