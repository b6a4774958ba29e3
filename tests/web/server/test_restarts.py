"""Ending, restarting and changing keys, under load, with real processes."""

import asyncio
import errno
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from support.clock import HANG, eventually
from support.service import KEY, ROOT, Service, client, environment, free_port
from uvicorn.server import ServerState

from signer.web.connections.protocol import CappedProtocol

pytestmark = pytest.mark.slow

NEW_KEY = "a-new-key-of-more-than-thirty-two-bytes!"
SCOPES = "token:issue token:introspect token:revoke metrics:read"


def credential(directory: Path, key: str = KEY) -> str:
    return client("tests", SCOPES, key)


@dataclass
class Load:
    """Clients that validate without a pause, each on one connection that stays open, and that never retry."""

    ports: list[int]
    token: str
    clients: int = 4
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    goes_on: bool = True

    def client(self) -> None:
        with ExitStack() as opened:
            connection: http.client.HTTPConnection | None = None
            while self.goes_on:
                try:
                    if connection is None:
                        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=HANG)
                        opened.callback(connection.close)
                    if self.ask(connection):
                        continue
                except (OSError, http.client.HTTPException) as error:
                    self.wrong.append(repr(error))
                opened.close()
                connection = None

    def ask(self, connection: http.client.HTTPConnection) -> bool:
        """Send one request, and return whether the connection stays open."""
        connection.request("GET", f"/app/valid/{self.token}")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or json.loads(body)["status"] is not True:
            self.wrong.append(f"{response.status} {body!r}")
        self.answered += 1
        return response.headers.get("Connection") != "close"


@contextmanager
def under_load(load: Load) -> Iterator[Load]:
    threads = [threading.Thread(target=load.client) for _ in range(load.clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.goes_on = False
        for thread in threads:
            thread.join(HANG)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Service]:
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2", "AUDIT_LOG": "audit.log", "LOG_LEVEL": "info"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as running:
        running.wait_until_started(2)
        yield running


def test_workers_are_replaced_without_a_failed_request(workers: Service) -> None:
    """SIGUSR2, twice, while four clients send requests on connections that stay open."""
    before = workers.pids
    with under_load(Load([workers.port], workers.issue())) as load:
        for round_ in (2, 4):
            os.kill(workers.process.pid, signal.SIGUSR2)
            workers.wait_until_started(round_ + 2)
            workers.wait_for_log("Finished server process", round_)
        eventually(lambda: load.answered > 200)
    assert load.wrong == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)


def beginning(folder: Path, how: str) -> dict[str, str]:
    """Settings of a service whose workers run this line of Python when they start."""
    line = f"import os, sys, time\nif any('spawn_main' in part for part in sys.orig_argv): {how}\n"
    (folder / "sitecustomize.py").write_text(line)
    return {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2", "PYTHONPATH": f"{folder}:{ROOT}"}


def test_workers_that_begin_slowly_are_waited_for(tmp_path: Path) -> None:
    """As on a busy machine, where Python and its imports take longer to start than a serving worker may be
    silent. None is killed, neither at the start nor when they are replaced."""
    with Service(tmp_path, beginning(tmp_path, "time.sleep(6)")) as service:
        service.wait_until_started(2)
        os.kill(service.process.pid, signal.SIGUSR2)
        service.wait_for_log("Finished server process", 2)
        assert len(service.pids) == 4
        assert service.call("GET", "/readyz").status == 200
        assert service.log.count("Opened the list") == 5  # and once for the parent


def test_a_worker_that_is_replaced_has_the_key_and_the_list_of_the_others(tmp_path: Path) -> None:
    """Files of secrets that change are for the next start: with two keys, a token would be good at one worker and
    not at the other."""
    key, url = tmp_path / "key", tmp_path / "url"
    key.write_text(f"{KEY}\n")
    url.write_text("sqlite:///./list.db\n")
    settings = {"SECRET_KEY_FILE": str(key), "DATABASE_URL_FILE": str(url), "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        service.wait_until_started(2)
        key.write_text(NEW_KEY)
        url.write_text("sqlite:///./other.db")
        os.kill(service.process.pid, signal.SIGUSR2)
        service.wait_for_log("Finished server process", 2)
        service.wait_until_started(4)
        os.kill(service.pids[-1], signal.SIGKILL)
        service.wait_until_started(5)
        assert all(service.says_valid(service.issue()) for _ in range(20))
    assert not (tmp_path / "other.db").exists()


def test_who_is_told_to_end_does_not_wait_for_new_workers(tmp_path: Path) -> None:
    """Ctrl+C while they are replaced."""
    with Service(tmp_path, beginning(tmp_path, "os.path.exists('slow') and time.sleep(600)")) as service:
        service.wait_until_started(2)
        (tmp_path / "slow").touch()
        os.kill(service.process.pid, signal.SIGUSR2)
        time.sleep(2)
        service.process.send_signal(signal.SIGINT)
        service.process.wait(HANG / 2)


def test_workers_that_are_killed_while_they_begin_end_the_service(tmp_path: Path) -> None:
    """As the system does when memory runs out: none of them serves."""
    with Service(
        tmp_path, beginning(tmp_path, "os.path.exists('deadly') and os.kill(os.getpid(), 9)")
    ) as service:
        service.wait_until_started(2)
        (tmp_path / "deadly").touch()
        for pid in service.pids:
            os.kill(pid, signal.SIGKILL)
        assert service.process.wait(HANG) == 3
        assert "No worker can start" in service.log


def test_without_the_folder_that_workers_share_the_service_ends(tmp_path: Path) -> None:
    """/dev/shm was cleared: no worker can start, and a line says so."""
    with Service(tmp_path, {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}) as service:
        service.wait_until_started(2)
        (folder,) = {
            Path(setting.partition("=")[2])
            for pid in service.pids
            for setting in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "signer-node-" in setting
        }
        shutil.rmtree(folder)
        for pid in service.pids:
            os.kill(pid, signal.SIGKILL)
        assert service.process.wait(HANG) == 3
        assert "Traceback" not in service.log


def test_a_worker_that_is_killed_is_replaced(workers: Service) -> None:
    """kill -9: the requests that it had are lost, and the service continues."""
    victim = workers.pids[0]
    os.kill(victim, signal.SIGKILL)
    workers.wait_until_started(3)
    assert all(workers.call("GET", "/readyz").status == 200 for _ in range(10))


def test_workers_end_with_a_supervisor_that_is_killed(workers: Service, tmp_path: Path) -> None:
    """Orphans would keep the port: the next service could not start, or would share it with them."""
    left = workers.pids
    os.kill(workers.process.pid, signal.SIGKILL)
    workers.process.wait(HANG)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, port=workers.port) as service:
        assert service.call("GET", "/readyz").status == 200


def test_a_worker_that_hangs_is_killed_at_the_end(workers: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped worker handles no signal; hangups that queue up before do not keep the supervisor from
    ending."""
    for pid in workers.pids:
        os.kill(pid, signal.SIGSTOP)
    for _ in range(8):
        os.kill(workers.process.pid, signal.SIGHUP)
    workers.process.send_signal(signal.SIGTERM)
    workers.process.wait(HANG)
    assert "hangs: killed" in workers.log


def test_a_hangup_of_the_whole_group_ends_nothing(tmp_path: Path) -> None:
    """A terminal that closes signals all processes, also those that are starting."""
    with Service(tmp_path, {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}) as service:
        for _ in range(20):
            os.killpg(service.process.pid, signal.SIGHUP)
            time.sleep(0.05)
        service.wait_until_started(2)
        assert service.process.poll() is None
        assert service.call("GET", "/readyz").status == 200
        assert "died" not in service.log


def test_a_signal_for_workers_ends_no_service_without_any(tmp_path: Path) -> None:
    """SIGUSR2 to a single process."""
    with Service(tmp_path, {"SECRET_KEY": KEY}) as service:
        service.wait_until_started()
        os.kill(service.process.pid, signal.SIGUSR2)
        time.sleep(0.3)
        assert service.call("GET", "/healthz").status == 200


def test_a_new_worker_that_cannot_start_leaves_the_old_ones(workers: Service, tmp_path: Path) -> None:
    """The list is gone when they are to be replaced: the running workers continue to refuse, and nothing is
    lost."""
    for file in tmp_path.glob("tokens.db*"):
        file.rename(file.with_name("kept-" + file.name))
    os.kill(workers.process.pid, signal.SIGUSR2)
    workers.wait_for_log("the old ones stay")
    assert workers.call("GET", "/app/valid/x").status in (200, 503)
    for file in tmp_path.glob("kept-tokens.db*"):
        file.rename(file.with_name(file.name.removeprefix("kept-")))
    token = workers.issue()
    assert workers.says_valid(token)


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_sighup_reopens_the_audit_trail_in_every_worker(tmp_path: Path, concurrency: str) -> None:
    """As logrotate does it: the file is moved away, then the signal is sent. No line is lost, and the service
    does not end."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": concurrency, "AUDIT_LOG": "audit.log"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        service.wait_until_started(int(concurrency))
        before = [service.issue(sub=f"before-{number}") for number in range(20)]
        (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
        os.kill(service.process.pid, signal.SIGHUP)
        service.wait_for_log("Opened the audit trail anew", int(concurrency))
        after = [service.issue(sub=f"after-{number}") for number in range(20)]
        assert service.process.poll() is None
    old, new = ((tmp_path / name).read_text() for name in ("audit.log.1", "audit.log"))
    assert old.count('"sub":"before-') == len(before)
    assert new.count('"sub":"after-') == len(after)
    assert "before" not in new


def test_sighup_reaches_workers_that_are_starting(tmp_path: Path) -> None:
    """It is sent when the first worker answers, while others may have opened the old file and have no handler
    yet."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "4", "AUDIT_LOG": "audit.log"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        service.wait_until_started()
        (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
        os.kill(service.process.pid, signal.SIGHUP)
        service.wait_until_started(4)
        eventually(lambda: not any(holds(pid, tmp_path / "audit.log.1") for pid in service.pids))
        for number in range(40):
            service.issue(sub=f"after-{number}")
    assert (tmp_path / "audit.log").read_text().count('"sub":"after-') == 40


def holds(pid: int, file: Path) -> bool:
    """Whether this process has the file open."""
    return any(os.path.realpath(link) == str(file) for link in Path(f"/proc/{pid}/fd").glob("*"))


def test_sighup_without_an_audit_trail_ends_nothing(tmp_path: Path) -> None:
    """Without a handler, the signal would."""
    with Service(tmp_path, {"SECRET_KEY": KEY, "AUDIT_LOG": "off"}) as service:
        service.wait_until_started()
        os.kill(service.process.pid, signal.SIGHUP)
        time.sleep(0.3)
        assert service.call("GET", "/healthz").status == 200


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_sigterm_finishes_what_is_under_way_and_refuses_new_work(tmp_path: Path, concurrency: str) -> None:
    """A body that arrives late is answered, new connections are refused, and then the service ends."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": concurrency}
    token = credential(tmp_path)
    with Service(tmp_path, settings, credential=token) as service:
        service.wait_until_started(int(concurrency))
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(
                b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer "
                + token.encode()
                + b"\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n{"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # the service waits for the rest
            service.process.send_signal(signal.SIGTERM)
            eventually(lambda: is_refused(service.port))
            connection.sendall(b'"sub": "42"}')
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        service.process.wait(HANG)
        assert "Traceback" not in service.log


def is_refused(port: int) -> bool:
    """Whether nothing listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_sigterm_under_load_loses_no_request(tmp_path: Path) -> None:
    """Every request that was sent is answered; only new connections are refused."""
    with Service(tmp_path, {"SECRET_KEY": KEY}, credential=credential(tmp_path)) as service:
        with under_load(Load([service.port], service.issue())) as load:
            eventually(lambda: load.answered > 100)
            service.process.send_signal(signal.SIGTERM)
            service.process.wait(HANG)
        assert {error for error in load.wrong if "ConnectionRefusedError" not in error} == set()
        assert "Traceback" not in service.log


def accepted(service: Service) -> dict[str, float]:
    """How many calls tokens of each key passed."""
    reply = service.call("GET", "/metrics")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(reply.raw.decode()):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "signer_events_total" and labels["outcome"] == "ok":
                found[labels["kid"]] = found.get(labels["kid"], 0) + sample.value
    return found


def test_keys_change_under_traffic_without_a_failed_validation(tmp_path: Path) -> None:
    """Two instances behind one list of addresses are restarted one after the other, in each of three steps:
    the new key as a fallback, as the key that signs, and alone. Metrics show when the old one is no longer
    used."""
    old_credential, new_credential = credential(tmp_path), credential(tmp_path, NEW_KEY)
    ports = [free_port(), free_port()]
    steps = [
        {"SECRET_KEY": KEY},
        {"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": NEW_KEY},
        {"SECRET_KEY": NEW_KEY, "SECRET_KEY_FALLBACKS": KEY},
        {"SECRET_KEY": NEW_KEY},
    ]
    running = [Service(tmp_path, steps[0], port=port, credential=old_credential) for port in ports]
    for service in running:
        service.__enter__()
    try:
        old_token = running[0].issue(sub="42")
        load = Load([running[0].port], old_token)
        with under_load(load):
            for step in steps[1:3]:
                for number in (0, 1):
                    # Traffic goes to the other instance, as a load balancer would send it.
                    load.ports[0] = ports[1 - number]
                    time.sleep(0.2)
                    assert running[number].stop() in (0, -signal.SIGTERM)
                    running[number] = Service(tmp_path, step, port=ports[number], credential=new_credential)
                    running[number].__enter__()
                    eventually(lambda number=number: ready(running[number]))  # type: ignore[misc]
            new_token = running[0].issue(sub="42")
            assert new_token[4:10] != old_token[4:10]
            load.token = new_token
            answered = load.answered
            eventually(lambda: load.answered > answered + 50 * load.clients)
            before = accepted(running[0])
            assert before[old_token[4:10]] > 0
            for _ in range(5):
                running[0].says_valid(new_token)
            after = accepted(running[0])
            assert after[old_token[4:10]] == before[old_token[4:10]]
            assert after[new_token[4:10]] > before[new_token[4:10]]
            for number in (0, 1):
                load.ports[0] = ports[1 - number]
                time.sleep(0.2)
                running[number].stop()
                running[number] = Service(tmp_path, steps[3], port=ports[number], credential=new_credential)
                running[number].__enter__()
                eventually(lambda number=number: ready(running[number]))  # type: ignore[misc]
        assert load.wrong == []
        assert not running[0].says_valid(old_token)
        assert running[1].says_valid(new_token)
    finally:
        for service in running:
            service.stop()


def ready(service: Service) -> bool:
    return service.call("GET", "/readyz").status == 200


#: Listens, and starts the service with the socket as a service manager does: as descriptor 3, with its pid.
MANAGER = """
import os, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
print("listening", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), **dict([line.strip().split("=", 1)])}
        os.execv(sys.executable, [sys.executable, sys.argv[2]])
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def test_a_restart_with_a_passed_socket_refuses_nobody(tmp_path: Path) -> None:
    """The service manager listens (systemd's socket units), so that clients that connect during a restart
    wait for it; the key changes meanwhile."""
    port = free_port()
    token = credential(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", MANAGER, str(port), str(ROOT / "app.py")],
        cwd=tmp_path,
        env=environment(SECRET_KEY=KEY, PORT=str(free_port()), AUDIT_LOG="off"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as manager:  # fmt: skip
        assert manager.stdin is not None
        assert manager.stdout is not None

        def tell(line: str) -> str:
            assert manager.stdin is not None
            assert manager.stdout is not None
            manager.stdin.write(line + "\n")
            manager.stdin.flush()
            return manager.stdout.readline()

        assert manager.stdout.readline() == "listening\n"
        child = int(tell(f"SECRET_KEY_FALLBACKS={NEW_KEY}"))
        service = Service(tmp_path, credential=token, port=port)
        with under_load(Load([port], service.issue())) as load:
            for _ in range(2):
                time.sleep(0.5)
                os.kill(child, signal.SIGTERM)
                assert manager.stdout.readline() == "ended\n"
                child = int(tell(f"SECRET_KEY_FALLBACKS={NEW_KEY}"))
            eventually(lambda: load.answered > 100)
        os.kill(child, signal.SIGTERM)
        assert manager.stdout.readline() == "ended\n"
        manager.stdin.close()
    assert load.wrong == []


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def test_a_connection_made_while_the_server_ends_is_drained_too() -> None:
    """It was accepted just before. Its next answer is the last, because a busy connection would delay the
    end."""

    async def last_of_a_late_connection() -> bytes:
        config = uvicorn.Config(_nothing, lifespan="off", log_config=None)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        told, late = socket.socketpair(), socket.socketpair()
        first, second = (CappedProtocol(config, state, {}) for _ in range(2))
        await loop.connect_accepted_socket(lambda: first, told[0])
        first.shutdown()
        await loop.connect_accepted_socket(lambda: second, late[0])
        reader, writer = await asyncio.open_connection(sock=late[1])
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.read(), HANG)
        finally:
            writer.close()
            told[1].close()
            for protocol in (first, second):
                protocol.transport.abort()

    assert b"connection: close" in asyncio.run(last_of_a_late_connection()).lower()
