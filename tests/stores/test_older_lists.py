"""A list that went back to an older state is refused by every process of a node that knew the newer one, no
matter which process saw it, until a person restarts the node."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from faults.cluster import workers
from support.clock import HANG, eventually
from support.older import Past, PastFile, PastKeys, PastTables
from support.service import KEY, Service

from signer import Signer

pytestmark = pytest.mark.slow

SCOPES = "token:issue token:introspect token:revoke revocations:read"
CREDENTIAL = Signer(KEY).issue(purpose="signer:client", sub="tests", client_id="tests", scope=SCOPES)
TOKENS = 20
#: Requests, each over a connection of its own: every worker has many of them.
ASKED = 40


@pytest.fixture
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Past:
    """A list of the kind that the parameter names."""
    if request.param == "sqlite":
        return PastFile(tmp_path)
    if request.param == "postgres":
        return PastTables(request.getfixturevalue("postgres"))
    return PastKeys(request.getfixturevalue("redis_server"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service, with two workers by default."""
    with ExitStack() as stack:

        def started(past: Past | str, workers: int = 2, folder: str = ".", **settings: str) -> Service:
            url = past if isinstance(past, str) else past.url
            ours = {"SECRET_KEY": KEY, "AUDIT_LOG": "off", "DATABASE_URL": url}
            ours |= {"WEB_CONCURRENCY": str(workers)} | settings
            service = Service(tmp_path / folder, ours, credential=CREDENTIAL)
            stack.enter_context(service)
            service.wait_until_started(workers)
            return service

        yield started


def accepted(service: Service, tokens: list[str]) -> int:
    """How many of so many questions about tokens are answered with "valid"; each that is not, as it should
    be."""
    answers = [service.call("GET", f"/app/valid/{tokens[n % len(tokens)]}") for n in range(ASKED)]
    assert {answer.status for answer in answers} <= {200, 503}
    return sum(answer.status == 200 and answer.json["status"] is True for answer in answers)


def revoked(service: Service) -> list[str]:
    """Tokens that every worker refuses."""
    tokens = [service.issue(sub="alice") for _ in range(TOKENS)]
    assert accepted(service, tokens) == ASKED
    for token in tokens[1:]:
        assert service.call("POST", "/app/revoke", {"token": token}).status == 200
    assert service.call("POST", "/app/revoke", {"sub": "alice"}).status == 200
    eventually(lambda: accepted(service, tokens) == 0, 60)
    return tokens


def replace_workers(service: Service) -> None:
    """Sends SIGUSR2, and waits until the restart is done or given up."""
    begun = len(service.pids)
    os.kill(service.process.pid, signal.SIGUSR2)
    eventually(lambda: "the old ones stay" in service.log or len(service.pids) == begun + 2, 60)


def kill_worker(service: Service) -> None:
    """Sends SIGKILL, and waits until another worker serves in its place, or the service has ended."""
    begun, died = len(service.pids), service.log.count(" died")
    os.kill(workers(service)[0], signal.SIGKILL)
    eventually(lambda: len(service.pids) > begun or service.log.count(" died") >= died + 2, 60)


def restarted(service: Service) -> Service:
    """As a person restarts it."""
    started = len(service.pids)
    service.stop()
    service.__enter__()
    service.wait_until_started(started + int(service.settings["WEB_CONCURRENCY"]))
    return service


EVERY = pytest.mark.parametrize("past", ["sqlite", "postgres", "redis"], indirect=True)


@pytest.mark.parametrize(
    ("past", "how", "staleness"),
    [
        ("sqlite", "put_back", "0"),
        *(
            pytest.param(*way, marks=pytest.mark.slow)
            for way in (
                ("sqlite", "begin_anew", "0"),
                ("postgres", "begin_anew", "0"),
                ("postgres", "put_back", "0"),
                ("postgres", "put_back", "1"),
                ("redis", "put_back", "0"),
                ("redis", "begin_anew", "0"),
                ("redis", "put_back", "1"),
            )
        ),
    ],
    indirect=["past"],
)
def test_no_worker_believes_an_older_list(
    past: Past, node: Callable[..., Service], how: str, staleness: str
) -> None:
    """Neither a running worker nor one that replaces it (SIGUSR2, kill -9). A restart by a person accepts
    it."""
    service = node(past, REVOCATION_STALENESS_SECONDS=staleness)
    past.keep()
    tokens = revoked(service)
    getattr(past, how)()
    assert accepted(service, tokens) == 0
    replace_workers(service)
    assert accepted(service, tokens) == 0
    kill_worker(service)
    assert accepted(service, tokens) == 0
    assert service.call("GET", "/readyz").status == 503
    assert "restart to accept" in service.log
    assert accepted(restarted(service), tokens) == ASKED


@EVERY
def test_a_worker_that_slept_through_the_newer_list_refuses_the_older_one(
    past: Past, node: Callable[..., Service]
) -> None:
    """It is stopped while the other one makes changes, and for longer than a copy may be old."""
    service = node(past, REVOCATION_STALENESS_SECONDS="1")
    tokens = [service.issue() for _ in range(TOKENS)]
    past.keep()
    sleeper, _ = workers(service)
    os.kill(sleeper, signal.SIGSTOP)
    try:
        for token in tokens:
            assert service.call("POST", "/app/revoke", {"token": token}).status == 200
        past.put_back()
        time.sleep(1.5)
    finally:
        with suppress(ProcessLookupError):  # after five seconds the supervisor replaces it
            os.kill(sleeper, signal.SIGCONT)
    assert accepted(service, tokens) == 0


def test_a_service_that_lost_all_its_workers_is_left_to_a_person(
    tmp_path: Path, node: Callable[..., Service]
) -> None:
    """It ends, and its exit code says that it must not be restarted automatically, which would accept the
    list."""
    past = PastFile(tmp_path)
    service = node(past)
    past.keep()
    revoked(service)
    past.put_back()
    for worker in workers(service):
        os.kill(worker, signal.SIGKILL)
    assert service.process.wait(HANG) == 2
    assert "No worker can start, because the revocation list is older than before" in service.log


def test_a_copy_of_a_service_whose_list_went_back_refuses(
    tmp_path: Path, node: Callable[..., Service]
) -> None:
    """Although that service accepts it, because a person restarted it: revocations are known here that it
    lost."""
    (tmp_path / "edge").mkdir()
    past = PastFile(tmp_path)
    service = node(past, workers=1)
    past.keep()
    url = f"http://tests:{CREDENTIAL}@127.0.0.1:{service.port}"
    edge = node(url, folder="edge", REVOCATION_STALENESS_SECONDS="1")
    tokens = revoked(service)
    eventually(lambda: accepted(edge, tokens) == 0, 60)
    service.stop()
    past.put_back()
    service.__enter__()
    service.wait_until_started(2)
    assert accepted(service, tokens) == ASKED
    edge.wait_for_log("went back to an older state")
    assert accepted(edge, tokens) == 0
    kill_worker(edge)
    assert accepted(edge, tokens) == 0
    assert accepted(restarted(edge), tokens) == ASKED
