"""Races and crashes, with real processes."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest
from support.clock import HANG
from support.service import KEY, ROOT, Service, cli, environment

from signer import Signer, Store
from signer.errors import TokenRevoked
from signer.policy import ATTEMPTS, TRUST

pytestmark = pytest.mark.slow

STARTER = """
import sys
from signer import Signer, open_store
print("ready", flush=True)
sys.stdin.readline()
store = open_store(sys.argv[2])
signer = Signer(sys.argv[1], store)
tokens = sys.argv[3:]
"""
CONSUMER = (
    STARTER
    + """
from signer import TokenError
for token in tokens:
    try:
        print(signer.consume(token).uses_left)
    except TokenError as error:
        print(error.code)
"""
)
REVOKER = (
    STARTER
    + """
for number in range(10**6):
    store.revoke(f"{number:022d}", 2_000_000_000)
    print(number, flush=True)
"""
)
TOGETHER = (
    STARTER
    + """
from signer import TokenError

told = []
for first in range(0, len(tokens), 4):
    with signer.together():
        for token in tokens[first : first + 4]:
            try:
                told.append(signer.consume(token).uses_left)
            except TokenError as error:
                told.append(error.code)
print(*told, sep="\\n")
"""
)


def start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", program, KEY, *arguments],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def let_go(processes: Sequence["subprocess.Popen[str]"]) -> list[list[str]]:
    """Let all of them start at once, and return what each printed."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=HANG)[0].split() for process in processes]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a list that does not exist yet."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/list.db"


@pytest.mark.parametrize("program", [CONSUMER, TOGETHER], ids=["one by one", "together"])
def test_eight_processes_claim_a_single_use_and_one_wins(url: str, program: str) -> None:
    """They also create the list at once. For each of 50 tokens, exactly one process gets the use."""
    signer = Signer(KEY)
    tokens = [signer.issue() for _ in range(50)]
    answers = let_go([start(program, url, *tokens) for _ in range(8)])
    for told in zip(*answers, strict=True):
        assert sorted(told) == ["0"] + ["token_used"] * 7


def test_eight_processes_share_a_limit_of_uses(url: str, open_list: Callable[[str], Store]) -> None:
    """max_uses=3 means three, and each process gets another number of uses left."""
    token = Signer(KEY, open_list(url)).issue(max_uses=3)
    answers = let_go([start(CONSUMER, url, token) for _ in range(8)])
    assert sorted(told for (told,) in answers) == ["0", "1", "2"] + ["token_used"] * 5


def test_what_was_acknowledged_survives_kill_9(url: str, open_list: Callable[[str], Store]) -> None:
    """A stream of revocations that is interrupted anywhere."""
    process = start(REVOKER, url)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    done = [int(process.stdout.readline()) for _ in range(20)]
    threading.Timer(0.2, process.kill).start()
    done += [int(line) for line in process.stdout if line.endswith("\n")]
    process.communicate(timeout=HANG)
    store = open_list(url)
    assert all(store.lookup(f"{number:022d}", 2_000_000_000, []).revoked for number in done)
    assert store.count() <= len(done) + 1


@pytest.fixture
def credential(tmp_path: Path) -> str:
    scope = "token:issue token:introspect token:revoke token:purge"
    return cli(tmp_path, "client", "tests", "--scope", scope, "--ttl", "1d", SECRET_KEY=KEY).stdout.strip()


def test_a_revocation_is_seen_by_every_process_at_once(tmp_path: Path, credential: str) -> None:
    """Two services with one list: once the revocation is answered, the other one refuses the token."""
    settings = {"SECRET_KEY": KEY}
    with (
        Service(tmp_path, settings, credential=credential) as first,
        Service(tmp_path, settings, credential=credential) as second,
    ):
        for here, there in ((first, second), (second, first)) * 10:
            token = here.issue(sub="alice")
            assert there.says_valid(token)
            assert here.call("POST", "/app/revoke", {"token": token}).status == 200
            assert not there.says_valid(token)
        token = first.issue(sub="alice")
        assert second.says_valid(token)
        assert first.call("POST", "/app/revoke", {"sub": "alice"}).status == 200
        assert not second.says_valid(token)
        assert second.says_valid(first.issue(sub="alice"))


def test_one_use_over_two_workers_and_many_requests(tmp_path: Path, credential: str) -> None:
    """The same over HTTP, with WEB_CONCURRENCY=2."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, credential=credential) as service, ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            token = service.issue()
            calls = [pool.submit(service.call, "POST", "/app/consume", {"token": token}) for _ in range(16)]
            assert sorted(call.result().status for call in calls) == [200] + [409] * 15


def test_kill_9_of_the_server_loses_no_acknowledged_revocation(tmp_path: Path, credential: str) -> None:
    """Four clients send revocations; the server is killed, started again and asked."""
    settings = {"SECRET_KEY": KEY}
    signer = Signer(KEY)
    tokens = [signer.issue() for _ in range(4000)]
    acknowledged: list[str] = []
    with Service(tmp_path, settings, credential=credential) as service:

        def revoke(part: list[str]) -> None:
            for token in part:
                try:
                    if service.call("POST", "/app/revoke", {"token": token}).status == 200:
                        acknowledged.append(token)
                except (OSError, HTTPException):  # killed before the answer, or during it
                    return

        clients = [threading.Thread(target=revoke, args=(tokens[start::4],)) for start in range(4)]
        for client in clients:
            client.start()
        while len(acknowledged) < 200:
            time.sleep(0.01)
        service.kill()
        for client in clients:
            client.join(HANG)
    assert 200 <= len(acknowledged) < 4000
    with Service(tmp_path, settings, credential=credential) as service:
        assert not [token for token in acknowledged if service.says_valid(token)]
        assert service.says_valid(tokens[-1]) == (tokens[-1] not in acknowledged)


@pytest.mark.parametrize("command", ["app.py", "uvicorn"])
def test_a_new_worker_does_not_make_an_empty_list(tmp_path: Path, credential: str, command: str) -> None:
    """The list is deleted while two workers run, and one of them dies. Its successor refuses to start, and no
    token is called valid."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    service = Service(tmp_path, settings, credential=credential)
    if command == "uvicorn":
        service.command = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}")
    with service:
        token = service.issue()
        assert service.call("POST", "/app/revoke", {"token": token}).status == 200
        service.wait_until_started(2)
        for file in tmp_path.glob("tokens.db*"):
            file.unlink()
        os.kill(service.pids[-1], signal.SIGKILL)
        time.sleep(2 * TRUST)
        begun = time.monotonic()
        # More often than the supervisor would try if none served.
        tries = 3 * ATTEMPTS if command == "app.py" else 1
        while service.log.count("signer: There is no list") < tries or time.monotonic() < begun + 1:
            assert time.monotonic() < begun + HANG, service.log
            try:
                reply = service.call("GET", f"/app/valid/{token}")
            except (OSError, HTTPException):
                continue
            assert (reply.status, reply.json["status"]) == (503, False)
        assert not (tmp_path / "tokens.db").exists()


def test_workers_that_cannot_start_end_the_service(tmp_path: Path, credential: str) -> None:
    """None of them serves any more, so the parent process says so in one line, ends with an exit code, and
    releases the port."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, credential=credential) as service:
        service.wait_until_started(2)
        for file in tmp_path.glob("tokens.db*"):
            file.rename(tmp_path / f"away-{file.name}")
        for pid in service.pids:
            os.kill(pid, signal.SIGKILL)
        assert service.process.wait(60) == 3
        said = [line for line in service.log.splitlines() if line.startswith("signer: ")]
        assert len([line for line in said if "There is no list" in line]) >= 3
        assert [line for line in said if "There is no list" not in line] == [
            "signer: No worker can start; the lines above say why. The service ends."
        ]
        with socket.socket() as port:
            port.bind(("127.0.0.1", service.port))


PATIENT = """
from signer.web.server import run as server, supervisor

supervisor.ATTEMPTS_TIME = 3600.0
server.serve()
"""


def test_workers_that_cannot_start_yet_are_tried_again(tmp_path: Path, credential: str) -> None:
    """However often they end, as long as a list may need to come back; then the service continues."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, command=("-c", PATIENT), credential=credential) as service:
        service.wait_until_started(2)
        token = service.issue()
        for file in tmp_path.glob("tokens.db*"):
            file.rename(tmp_path / f"away-{file.name}")
        for pid in service.pids:
            os.kill(pid, signal.SIGKILL)
        service.wait_for_log("There is no list", 2 * ATTEMPTS + 1)
        for file in tmp_path.glob("away-*"):
            file.rename(tmp_path / file.name.removeprefix("away-"))
        service.wait_until_started(4)
        assert service.says_valid(token)
        assert service.process.poll() is None


def test_a_list_in_memory_is_not_for_workers(tmp_path: Path) -> None:
    """However they are started: each would revoke only for itself."""
    service = Service(tmp_path, {"SECRET_KEY": KEY, "DATABASE_URL": "memory://"}, waits=False)
    service.command = (
        "-m",
        "uvicorn",
        "app:app",
        "--app-dir",
        str(ROOT),
        "--port",
        "{port}",
        "--workers",
        "2",
    )
    with service:
        service.wait_for_log("signer: DATABASE_URL=memory://")


def test_tokens_from_the_library_and_the_service_are_the_same(
    tmp_path: Path, credential: str, open_list: Callable[[str], Store]
) -> None:
    """With one key and one list, there are two ways to use them."""
    with Service(tmp_path, {"SECRET_KEY": KEY}, credential=credential) as service:
        signer = Signer(KEY, open_list(f"sqlite:///{tmp_path}/tokens.db"))
        theirs, ours = service.issue(sub="alice"), signer.issue(sub="alice")
        assert signer.validate(theirs).client_id == "tests"
        assert service.says_valid(ours)
        service.call("POST", "/app/revoke", {"token": ours})
        with pytest.raises(TokenRevoked):
            signer.validate(ours)
        signer.revoke(theirs)
        assert not service.says_valid(theirs)
