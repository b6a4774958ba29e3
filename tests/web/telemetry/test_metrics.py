"""The metrics, as Prometheus reads them."""

import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clock import eventually
from support.service import KEY, ROOT, Service, client

from signer import open_store

SCOPES = "token:issue token:introspect token:revoke token:purge metrics:read read"
Labels = dict[str, str]


def credential(directory: Path, scopes: str = SCOPES) -> str:
    return client("tests", scopes)


def scraped(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = service.call("GET", "/metrics")
    assert reply.status == 200, reply.raw
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.raw.decode())
        for sample in family.samples
    }


def total(service: Service, name: str, **labels: Any) -> float:
    """The sum over all samples that have these labels."""
    wanted = {(key, str(value)) for key, value in labels.items()}
    return sum(value for (found, has), value in scraped(service).items() if found == name and wanted <= has)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("watched")
    with Service(directory, {"SECRET_KEY": KEY}, credential=credential(directory)) as running:
        yield running


def test_requests_are_counted_by_route_method_and_status(watched: Service) -> None:
    """The label is the template, for any path. A rare method is OTHER, and an unknown path has no route."""
    for path in ("/app/valid/a", "/app/valid/b"):
        watched.call("GET", path)
    watched.call("GET", "/nowhere/sgt_")
    watched.call("PROPFIND", "/app/token")
    assert (
        total(watched, "signer_http_requests_total", route="/app/valid/{token}", method="GET", status=200)
        == 2
    )
    assert total(watched, "signer_http_requests_total", route="-", status=404) == 1
    assert total(watched, "signer_http_requests_total", method="OTHER", status=405) == 1
    name = "signer_http_request_duration_seconds"
    assert total(watched, f"{name}_count", route="/app/valid/{token}") == 2
    assert 0 < total(watched, f"{name}_sum", route="/app/valid/{token}") < 1


def test_what_happens_to_tokens_is_counted(watched: Service) -> None:
    """Issued, validated (by outcome), consumed, rotated, revoked, purged, codes; each with the key's id."""
    token, other = watched.issue(sub="42"), watched.issue(max_uses=1)
    assert watched.says_valid(token)
    assert not watched.says_valid("x")
    watched.call("POST", "/app/consume", {"token": other})
    watched.call("POST", "/app/consume", {"token": other})
    watched.call("POST", "/app/rotate", {"token": token})
    watched.call("POST", "/app/revoke", {"token": token})
    watched.says_valid(token)
    watched.call("DELETE", "/app/clear/all/tokens")
    challenge = watched.call("POST", "/app/code", {"sub": "42"}).json
    watched.call("POST", "/app/code/verify", {"token": challenge["token"], "code": challenge["code"]})
    watched.call("GET", "/auth", headers={"Authorization": f"Bearer {token}"})
    kid = token[4:10]
    for event, outcome, count in [
        ("issue", "ok", 3), ("validate", "ok", 1), ("consume", "ok", 1), ("consume", "token_used", 1),
        ("rotate", "ok", 1), ("revoke", "ok", 1), ("validate", "token_revoked", 2), ("verify_code", "ok", 1),
    ]:  # fmt: skip
        assert total(watched, "signer_events_total", event=event, outcome=outcome, kid=kid) == count, event
    assert total(watched, "signer_events_total", event="validate", outcome="token_malformed", kid="") >= 1
    assert total(watched, "signer_events_total", event="purge", outcome="ok") == 1


def test_errors_are_counted_by_their_code(watched: Service) -> None:
    """The code that the caller gets; for the OAuth endpoints, our own code."""
    watched.call("POST", "/app/token", credential="x")
    watched.call("POST", "/app/token", {"ttl": -1})
    watched.send_raw(b"GET /auth HTTP/1.1\r\nHost: localhost\r\n\r\n")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    watched.call("POST", "/oauth/introspect", b"token=x", form, credential="x")
    assert total(watched, "signer_errors_total", code="credential_invalid") == 2
    assert total(watched, "signer_errors_total", code="request_invalid") == 1
    assert total(watched, "signer_errors_total", code="token_missing") == 1
    assert total(watched, "signer_events_total", event="authenticate", outcome="credential_invalid") == 2


def test_the_list_is_timed_and_measured(watched: Service) -> None:
    """Look-ups and writes by operation; the number of rows and whether the list answers, at this moment."""
    rows = total(watched, "signer_store_rows")
    token = watched.issue()
    watched.says_valid(token)
    watched.call("POST", "/app/revoke", {"token": token})
    assert total(watched, "signer_store_rows") == rows + 1
    assert total(watched, "signer_store_up") == 1
    assert total(watched, "signer_store_duration_seconds_count", operation="lookup") >= 2
    assert total(watched, "signer_store_duration_seconds_count", operation="revoke") >= 1


def test_build_and_keys_are_told(watched: Service) -> None:
    """Ids of keys are public: every token has one."""
    from signer import __version__

    assert total(watched, "signer_build_info", version=__version__) == 1
    assert total(watched, "signer_key_info", role="current", kid=watched.issue()[4:10]) == 1


def test_no_value_of_a_label_is_a_callers(watched: Service) -> None:
    """No token, no path and no address: they are secret, and there is no end of them."""
    token = watched.issue(sub="somebody")
    watched.says_valid(token)
    watched.call(
        "GET", f"/{token}?x={token}", headers={"X-Request-ID": "mine", "X-Forwarded-For": "192.0.2.7"}
    )
    watched.send_raw(f"{token} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    text = watched.call("GET", "/metrics").raw.decode()
    for part in (*token.split(".")[1:], "somebody", "mine", "192.0.2.7", "127.0.0.1"):
        assert part not in text


def test_prometheus_may_choose_the_format(watched: Service) -> None:
    """OpenMetrics if it asks for that; no cache stores either."""
    plain = watched.call("GET", "/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    modern = watched.call("GET", "/metrics", headers=accept)
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text")
    assert modern.raw.endswith(b"# EOF\n")
    assert plain.headers["Cache-Control"] == modern.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain; version=x",
        "text/plain; version=",
        "text/plain;version=1.x, */*",
        "text/plain; version=1.0.0; escaping=x",
        "application/openmetrics-text; version=mine",
        "application/openmetrics-text; version=2.mine",
        "application/openmetrics-text; version=1.0.0.mine; escaping=mine",
        "text/plain;version=\xb2\xff",
        "image/png",
        ";,;=,",
    ],
)
def test_whatever_is_accepted_is_answered(watched: Service, accept: str) -> None:
    """In a format that exists, and with nothing of the caller's in a header."""
    reply = watched.call("GET", "/metrics", headers={"Accept": accept})
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith(
        ("text/plain; version=", "application/openmetrics-text; version=")
    )
    assert "mine" not in reply.headers["Content-Type"]
    assert b"signer_build_info" in reply.raw


def test_the_next_format_does_where_the_first_is_not_known(watched: Service) -> None:
    """As in the header of Prometheus, which has the newest format first."""
    accept = "application/openmetrics-text;version=9.9.9;q=0.9,text/plain;version=1.0.0;escaping=allow-utf-8,*/*;q=0.1"
    reply = watched.call("GET", "/metrics", headers={"Accept": accept})
    assert reply.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"


def test_they_are_guarded(tmp_path: Path) -> None:
    """By metrics:read, unless ANONYMOUS_SCOPES opens them."""
    lacking = credential(tmp_path, "token:issue")
    with Service(tmp_path, {"SECRET_KEY": KEY}) as service:
        assert service.call("GET", "/metrics").status == 401
        assert service.call("GET", "/metrics", credential=lacking).status == 403
    with Service(tmp_path, {"SECRET_KEY": KEY, "ANONYMOUS_SCOPES": "metrics:read"}) as service:
        assert service.call("GET", "/metrics").status == 200


def test_a_list_that_cannot_answer_is_down_and_has_no_size(tmp_path: Path) -> None:
    """No old number is shown, and the page works: it is needed most then."""
    settings = {"SECRET_KEY": KEY, "ANONYMOUS_SCOPES": "metrics:read"}
    with Service(tmp_path, settings) as service:
        for file in tmp_path.glob("tokens.db*"):
            file.unlink()
        assert total(service, "signer_store_up") == 0
        assert not [name for name, _ in scraped(service) if name == "signer_store_rows"]
        service.call("GET", f"/app/valid/{Service.__name__}")


@pytest.fixture
def workers(tmp_path: Path) -> Any:
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as running:
        running.wait_until_started(2)
        yield running


def test_workers_count_together(workers: Service) -> None:
    """Whichever answers, and from the first request on; also after one of them was killed with -9."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(workers.call, "GET", "/app/valid/x") for _ in range(60)]
        assert all(call.result().status == 200 for call in calls)
    for _ in range(4):
        assert total(workers, "signer_http_requests_total", route="/app/valid/{token}") == 60
    victim = workers.pids[0]
    os.kill(victim, signal.SIGKILL)
    workers.wait_until_started(3)
    assert total(workers, "signer_http_requests_total", route="/app/valid/{token}") == 60
    assert total(workers, "signer_build_info") == 1


@pytest.mark.slow
def test_no_gauge_lies_after_kill_9(tmp_path: Path, workers: Service) -> None:
    """Changes that waited at a killed worker do not wait any longer."""
    token = workers.issue()
    lock = sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)
    with closing(lock), ThreadPoolExecutor(12) as pool:
        lock.execute("BEGIN IMMEDIATE")
        calls = [pool.submit(workers.call, "POST", "/app/revoke", {"token": token}) for _ in range(12)]
        deadline = time.monotonic() + 4
        while total(workers, "signer_changes_waiting") < 12 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert total(workers, "signer_changes_waiting") == 12
        for pid in workers.pids:
            os.kill(pid, signal.SIGKILL)
        lock.execute("ROLLBACK")
        for call in calls:
            assert call.exception() is not None or call.result().status in (200, 503)
    workers.wait_until_started(4)
    eventually(lambda: total(workers, "signer_changes_waiting") == 0)  # the supervisor has noticed


def test_the_folder_of_the_workers_goes_with_them(workers: Service) -> None:
    """A service that was ended in order leaves nothing behind."""
    folder = folder_of(workers)
    assert list(folder.iterdir())
    workers.stop()
    assert not folder.exists()


@pytest.mark.slow
def test_a_worker_that_knows_no_others_tells_nothing(tmp_path: Path) -> None:
    """Under uvicorn's own --workers, each would report its own part as the whole."""
    token = credential(tmp_path)
    open_store(f"sqlite:///{tmp_path}/tokens.db").close()
    app = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--workers", "2")
    service = Service(tmp_path, {"SECRET_KEY": KEY}, (*app, "--port", "{port}"), token)
    with service:
        reply = service.call("GET", "/metrics")
        assert (reply.status, reply.json["code"]) == (503, "metrics_unavailable")
    (tmp_path / "metrics").mkdir()
    service.settings = {"SECRET_KEY": KEY, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with service:
        assert service.call("GET", "/metrics").status == 200


def folder_of(service: Service) -> Path:
    (folder,) = [
        line.partition("=")[2]
        for line in Path(f"/proc/{service.pids[-1]}/environ").read_text().split("\0")
        if line.startswith("PROMETHEUS_MULTIPROC_DIR=")
    ]
    return Path(folder)


def validations(service: Service) -> float:
    """How many were counted."""
    return total(service, "signer_http_requests_total", route="/app/valid/{token}")


@pytest.mark.slow
def test_files_do_not_become_more_with_every_worker_that_dies(workers: Service) -> None:
    """A worker continues to count where the last one ended. The files are in memory, which a crash loop would
    fill."""
    token = workers.issue()
    for _ in range(20):
        workers.says_valid(token)
    files = len(list(folder_of(workers).iterdir()))
    for round_ in range(1, 5):
        # A request is counted after its answer, and not by a worker that is dead by then.
        eventually(lambda asked=19 + round_: validations(workers) == asked)  # type: ignore[misc]
        for pid in workers.pids[-2:]:
            os.kill(pid, signal.SIGKILL)
        workers.wait_until_started(2 + 2 * round_)
        assert workers.says_valid(token)
    assert validations(workers) == 24
    # At most one more set of files, for a worker that started before the end of another was noticed.
    assert len(list(folder_of(workers).iterdir())) <= files + 4


def test_a_single_process_shares_nothing_with_what_the_environment_names(tmp_path: Path) -> None:
    """The folder may belong to another service, or be an old one."""
    settings = {
        "SECRET_KEY": KEY,
        "ANONYMOUS_SCOPES": "metrics:read",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none"),
    }
    with Service(tmp_path, settings) as service:
        assert total(service, "signer_build_info") == 1
        assert total(service, "process_start_time_seconds") > 0


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    """Under uvicorn's own command, which takes the folder from the environment."""
    settings = {"SECRET_KEY": KEY, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")}
    app = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}")
    service = Service(tmp_path, settings, app)
    with pytest.raises(AssertionError, match="did not start"):
        service.__enter__()
    assert service.log.splitlines()[-1].startswith(
        "signer: PROMETHEUS_MULTIPROC_DIR names a folder that cannot be used"
    )
    assert "Traceback" not in service.log
