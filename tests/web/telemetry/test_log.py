"""What the log says, and what it never says."""

import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from support.clock import HANG, eventually
from support.service import ROOT, Service, environment, free_port

from signer.web.telemetry.log import JSONFormatter, TextFormatter

LINE = re.compile(
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO signer\.web\.middleware request"
    r" method=(?P<method>\S+) route=(?P<route>\S+) status=(?P<status>\d+)"
    r" duration_ms=\d+\.\d{1,2} code=(?P<code>\S+) actor=(?P<actor>\S+) address=127\.0\.0\.1 request_id=(?P<id>[0-9a-f]{16})$",
    re.MULTILINE,
)


@pytest.mark.parametrize("command", ["app.py", "uvicorn"])
def test_one_line_a_request_and_no_token_in_any(
    development: Service, under_uvicorn: Service, command: str
) -> None:
    """Tokens in paths, bodies, headers, queries and methods; uvicorn's access log is always off."""
    service = {"app.py": development, "uvicorn": under_uvicorn}[command]
    token = service.issue()
    seen = len(LINE.findall(service.log))
    service.says_valid(token)
    service.call("POST", f"/app/valid/{token}", {"token": token})
    service.call("GET", f"/{token}?token={token}")
    service.call("POST", "/app/token", {token: token}, {"X-Request-ID": token, "X-Token": token})
    service.call("POST", "/app/token", credential=token)
    service.send_raw(f"{token} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    eventually(lambda: len(LINE.findall(service.log)) - seen >= 5)
    for part in (token, *token.split(".")[1:]):
        assert part not in service.log


def test_the_id_of_a_request_is_in_its_answer(development: Service) -> None:
    """So that an answer leads to its line, and a line to its answer."""
    reply = development.call("GET", "/app/valid/x")
    development.wait_for_log(
        f"request_id={reply.headers['X-Request-ID']}"
    )  # the line is written after the answer
    lines = {match["id"]: match for match in LINE.finditer(development.log)}
    line = lines[reply.headers["X-Request-ID"]]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/app/valid/{token}", "200")


def test_log_level_is_heeded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """At `warning` requests are not logged."""
    with Service(tmp_path_factory.mktemp("quiet"), {"LOG_LEVEL": "warning"}) as service:
        service.issue()
        assert "method=" not in service.log
        assert "DEVELOPMENT SERVICE" in service.log


@pytest.mark.slow
def test_sigterm_ends_it_in_time_with_a_half_sent_body_open(tmp_path_factory: pytest.TempPathFactory) -> None:
    """uvicorn alone would wait for the rest of that body forever."""
    with Service(tmp_path_factory.mktemp("end")) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(
                b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            time.sleep(0.2)
            service.process.send_signal(signal.SIGTERM)
            service.process.wait(HANG)
        assert "Traceback" not in service.log


@pytest.mark.slow
def test_changes_that_wait_when_it_ends_are_told_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    """503 for each and no traceback, and the change was not made."""
    directory = tmp_path_factory.mktemp("queue")
    with Service(directory) as service:
        tokens = [service.issue() for _ in range(8)]
        lock = sqlite3.connect(directory / "tokens.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(service.call, "POST", "/app/revoke", {"token": token}) for token in tokens]
            time.sleep(0.5)
            service.process.terminate()
            assert [call.result().status for call in calls] == [503] * 8
        service.process.wait(HANG)
        lock.close()
        assert "Traceback" not in service.log
    with Service(directory) as service:
        assert all(service.says_valid(token) for token in tokens)


@pytest.mark.slow
def test_changes_do_not_wait_for_one_another_for_ever(tmp_path_factory: pytest.TempPathFactory) -> None:
    """While the list is locked, each of many callers is refused after about five seconds, and not after five
    each."""
    directory = tmp_path_factory.mktemp("locked")
    with (
        Service(directory) as service,
        closing(sqlite3.connect(directory / "tokens.db", isolation_level=None)) as lock,
    ):
        lock.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(8) as pool:
            started = time.monotonic()
            calls = [pool.submit(service.call, "POST", "/app/revoke", {"sub": "x"}) for _ in range(8)]
            assert [call.result().status for call in calls] == [503] * 8
            assert time.monotonic() - started < 35
        lock.execute("ROLLBACK")
        assert service.call("POST", "/app/revoke", {"sub": "x"}).status == 200


@pytest.mark.parametrize("given", ["a", "Root_1-67891233", "0f9c7b1e-3f57-4f0a-9d2b-1c2d3e4f5a6b", "x" * 64])
def test_a_well_formed_request_id_is_kept(development: Service, given: str) -> None:
    """So that one id passes through all services: it is in the answer, the log and the audit trail."""
    reply = development.call("POST", "/app/token", {}, {"X-Request-ID": given})
    development.wait_for_log(f"request_id={given}\n")
    assert reply.headers["X-Request-ID"] == given
    assert f"request_id={given}\n" in development.log
    assert f'"request_id":"{given}"' in development.log


@pytest.mark.parametrize("given", ["", " ", "a b", "x" * 65, "a.b", "é", "a=b", "a/b", '"'])
def test_any_other_request_id_is_replaced(development: Service, given: str) -> None:
    """Otherwise a header and the log would have any text of a stranger, or a token."""
    reply = development.call("GET", "/healthz", headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{16}", reply.headers["X-Request-ID"])
    both = development.send_raw(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n"
    )
    assert re.search(rb"x-request-id: [0-9a-f]{16}\r\n", both)


def test_a_line_says_who_asked_and_what_was_wrong(production: Service) -> None:
    """The client's name and the code of the error, as in the answer."""
    refused = production.call("POST", "/app/token", {"scope": "admin"})
    unknown = production.call("POST", "/app/token", credential="x")
    for reply in (refused, unknown):
        production.wait_for_log(f"request_id={reply.headers['X-Request-ID']}")
    lines = {match["id"]: match for match in LINE.finditer(production.log)}
    line = lines[refused.headers["X-Request-ID"]]
    assert (line["actor"], line["code"], line["status"]) == ("tests", "scope_insufficient", "403")
    line = lines[unknown.headers["X-Request-ID"]]
    assert (line["actor"], line["code"], line["status"]) == ("-", "credential_invalid", "401")


@pytest.mark.parametrize("command", ["app.py", "uvicorn"])
def test_json_is_one_object_a_line(tmp_path_factory: pytest.TempPathFactory, command: str) -> None:
    """In every line, also those of the server itself; numbers are numbers."""
    settings = {"LOG_FORMAT": "json", "AUDIT_LOG": "off"}
    service = Service(tmp_path_factory.mktemp("json"), settings)
    if command == "uvicorn":
        service.command = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}")
    with service:
        token = service.issue()
        reply = service.call("GET", f"/app/valid/{token}")
        service.wait_for_log(reply.headers["X-Request-ID"])
    lines = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
    # uvicorn's own command logs nothing before the settings are read.
    assert len(lines) >= len(service.log.splitlines()) - 2
    (line,) = [line for line in lines if line.get("request_id") == reply.headers["X-Request-ID"]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert 0 < line.pop("duration_ms") < 1000 * HANG
    assert {**line, "time": 0, "request_id": 0} == {
        "time": 0, "level": "info", "logger": "signer.web.middleware", "message": "request", "method": "GET",
        "route": "/app/valid/{token}", "status": 200, "code": "-", "actor": "-", "address": "127.0.0.1", "request_id": 0,
    }  # fmt: skip
    assert any(line["message"].startswith("Finished server process") for line in lines)
    assert token not in service.log


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    """In both forms, in lines of any logger; in text, a traceback keeps its lines."""
    record = logging.LogRecord("x", logging.ERROR, "", 0, "a\n\x1b[31m\x9b\u2028%s", ("é",), None)
    line = TextFormatter().format(record)
    assert line.endswith(r"ERROR x a\n\x1b[31m\x9b\u2028é")
    assert json.loads(JSONFormatter().format(record))["message"] == "a\n\x1b[31m\x9b\u2028é"
    assert re.fullmatch("[ -~]*", JSONFormatter().format(record))
    try:
        1 / 0  # noqa: B018 - it raises
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    assert "\nZeroDivisionError: " in TextFormatter().format(record)
    assert "ZeroDivisionError" in json.loads(JSONFormatter().format(record))["exception"]


@pytest.mark.slow
def test_a_log_that_nobody_reads_stops_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Standard error is a pipe whose reader has stopped: lines are lost, and answers are not."""
    directory = tmp_path_factory.mktemp("unread")
    reader, writer = os.pipe()
    port = free_port()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "app.py")], cwd=directory, stdout=writer, stderr=writer,
        env=environment(SECRET_KEY="k" * 40, PORT=str(port), ANONYMOUS_SCOPES="token:issue"),
    ) as process:  # fmt: skip
        os.close(writer)
        service = Service(directory, port=port)
        service.process = process  # as if the process had been started with it
        service.log_path = directory / "none"
        service._wait()
        for _ in range(1000):
            assert not service.says_valid("x")
        assert service.call("POST", "/app/token").status == 503  # the audit trail is in it, too
        while len(os.read(reader, 65536)) == 65536:
            pass
        token = service.issue()
        assert service.says_valid(token)
        process.terminate()
        process.wait(HANG)
    os.close(reader)
