"""The audit trail, as a file and on standard output."""

import contextvars
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from support.clock import HANG, Clock
from support.service import KEY, environment

from signer import Claims, Signer, Store, TokenError, audit
from signer.audit import AuditTrail
from signer.errors import AuditError, ConfigurationError, StoreError
from signer.events import NAMES, Event, Origin, origin
from signer.policy import AUDIT_TIMEOUT, MAX_LINE, WRITE_TIMEOUT
from signer.stores.sqlite.store import SQLiteStore
from signer.tokens.codec import Codec
from signer.tokens.keys import KeyRing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def opened(path: Path, clock: Clock) -> Iterator[Callable[..., AuditTrail]]:
    trails: list[AuditTrail] = []

    def open_trail(**options: Any) -> AuditTrail:
        trails.append(AuditTrail(str(path), clock=clock, **options))
        return trails[-1]

    yield open_trail
    for trail in trails:
        trail.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_all_there_is(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock
) -> None:
    """The time as in RFC 3339, in UTC, with milliseconds; the origin; the event with its own names; and no
    token."""
    signer = Signer(KEY, store, clock=clock, hooks=[opened()])
    clock.now += 0.0625
    token = origin_of(lambda: signer.issue(sub="42", purpose="reset", sid="s", client_id="billing"))
    claims = signer.inspect(token).unverified_claims
    assert lines(path) == [
        {
            "time": "2027-01-15T08:00:00.062Z", "request_id": "r1", "actor": "billing", "address": "192.0.2.7",
            "event": "issue", "outcome": "ok", "jti": claims.jti, "sub": "42", "purpose": "reset",
            "client_id": "billing", "sid": "s", "kid": claims.kid,
        }
    ]  # fmt: skip
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def origin_of(call: Callable[[], str]) -> str:
    token = origin.set(Origin(request_id="r1", actor="billing", address="192.0.2.7"))
    try:
        return call()
    finally:
        origin.reset(token)


def test_a_change_that_fails_gets_a_second_line(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock
) -> None:
    """The first one was written before the attempt."""
    signer = Signer(KEY, store, clock=clock, hooks=[opened()])
    token = signer.issue()
    store.close()
    with pytest.raises(StoreError):
        signer.revoke(token)
    assert [(line["event"], line["outcome"]) for line in lines(path)] == [
        ("issue", "ok"),
        ("revoke", "ok"),
        ("revoke", "store_unavailable"),
    ]


@pytest.mark.parametrize("validations", [False, True])
def test_validations_are_written_where_asked_for(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock, validations: bool
) -> None:
    """Strangers can validate, so without that setting they could fill the trail."""
    signer = Signer(KEY, store, clock=clock, hooks=[opened(validations=validations)])
    token = signer.issue()
    signer.validate(token)
    with pytest.raises(TokenError):
        signer.validate("x")
    outcomes = [line["outcome"] for line in lines(path) if line["event"] == "validate"]
    assert outcomes == (["ok", "token_malformed"] if validations else [])


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (Event(name="authenticate"), False),
        (Event(name="authenticate", outcome="credential_missing"), False),
        (Event(name="authenticate", outcome="rate_limited"), False),
        (Event(name="authenticate", outcome="request_invalid"), False),
        (Event(name="authenticate", outcome="store_unavailable"), False),
        (Event(name="authenticate", outcome="credential_invalid"), True),
        (Event(name="authenticate", outcome="scope_insufficient"), True),
        (Event(name="consume", outcome="token_used"), True),
        (Event(name="purge", rows=3), True),
    ],
)
def test_callers_that_were_refused_are_written(
    path: Path, opened: Callable[..., AuditTrail], event: Event, written: bool
) -> None:
    """But not those without a credential, or above the rate limit: strangers can call without end."""
    opened().after(event)
    assert bool(lines(path)) is written


HOSTILE = '\n\r\t\x00\x1b[31m\x7f\x85\x9b\u2028\u2029\ud800"\\' + "é" * 5000 + "🔑" * 5000


def test_nothing_that_a_token_says_breaks_a_line(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock
) -> None:
    """Line ends, control characters of terminals, halves of surrogate pairs, megabytes: a holder of a key can
    put any of them into a token."""
    fields = ("jti", "sub", "purpose", "client_id", "sid", "kid", "outcome")
    hostile: dict[str, Any] = dict.fromkeys(fields, HOSTILE)
    opened().before(Event(name="issue", **hostile))
    origin_of(lambda: Signer(KEY, store, clock=clock, hooks=[opened()]).issue(sub="🔑" * 255))
    raw = path.read_bytes()
    assert raw.count(b"\n") == 2
    assert re.fullmatch(rb"[ -~\n]*", raw)
    assert all(len(line) <= MAX_LINE for line in raw.splitlines(keepends=True))
    assert lines(path)[1]["sub"] == "🔑" * 255


def test_a_forged_text_is_not_in_the_trail(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock
) -> None:
    """If the signature does not fit, nothing in the text can be trusted."""
    signer = Signer(KEY, store, clock=clock, hooks=[opened(validations=True)])
    claims = Claims(jti="forged", exp=2**31, purpose="access", sub="forged")
    with pytest.raises(TokenError):
        signer.validate(
            Codec(KeyRing("another key of more than thirty-two bytes")).encode(claims, 1_800_000_000)
        )
    assert "forged" not in path.read_text()


def test_what_cannot_be_written_is_refused_and_validation_goes_on(
    opened: Callable[..., AuditTrail], store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """/dev/full behaves like a full disk. The log says so once, however many tokens are validated."""
    trail = AuditTrail("/dev/full", validations=True, clock=clock)
    token = Signer(KEY, store, clock=clock).issue()
    signer = Signer(KEY, store, clock=clock, hooks=[trail])
    for change in (signer.consume, signer.revoke, signer.rotate):
        with pytest.raises(AuditError, match="No space left"):
            change(token)
    with pytest.raises(AuditError):
        signer.issue()
    assert signer.validate(token) == signer.validate(token)
    assert caplog.text.count("cannot be written") == 1
    trail.close()


@pytest.mark.parametrize("target", ["no/such/folder/audit.log", "."])
def test_a_trail_that_cannot_be_opened_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """The message names the setting."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="AUDIT_LOG"):
        AuditTrail(target)


def test_a_pipe_that_nobody_reads_is_an_error_and_not_a_start_that_hangs(tmp_path: Path) -> None:
    """O_NONBLOCK."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="AUDIT_LOG"):
        AuditTrail(str(tmp_path / "pipe"))


def test_a_reader_that_has_stopped_refuses_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a full pipe would wait forever, and the service with it."""
    monkeypatch.setattr("signer.audit.AUDIT_TIMEOUT", 0.05)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    trail = AuditTrail(str(tmp_path / "pipe"))
    with suppress(BlockingIOError):
        while os.write(trail._descriptor, b"x" * 512):
            pass
    with pytest.raises(AuditError):
        trail.before(Event(name="issue"))
    trail.after(Event(name="consume", outcome="token_used"))  # returns
    os.read(reader, 65536)
    trail.before(Event(name="issue"))
    trail.close()
    os.close(reader)


def test_reopening_goes_on_in_a_new_file(path: Path, opened: Callable[..., AuditTrail]) -> None:
    """As logrotate does it: the file is moved away, then the process is signalled."""
    trail = opened()
    trail.before(Event(name="issue", sub="1"))
    path.rename(path.with_suffix(".1"))
    trail.before(Event(name="issue", sub="2"))
    trail.reopen()
    trail.before(Event(name="issue", sub="3"))
    assert [line["sub"] for line in lines(path.with_suffix(".1"))] == ["1", "2"]
    assert [line["sub"] for line in lines(path)] == ["3"]


def test_a_new_file_that_cannot_be_made_leaves_the_old_one(
    path: Path, opened: Callable[..., AuditTrail], caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is lost."""
    trail = opened()
    path.rename(path.with_suffix(".1"))
    path.mkdir()
    trail.reopen()
    trail.before(Event(name="issue", sub="1"))
    assert "goes on in the old file" in caplog.text
    assert [line["sub"] for line in lines(path.with_suffix(".1"))] == ["1"]


def test_a_deleted_file_is_made_anew(path: Path, opened: Callable[..., AuditTrail]) -> None:
    """Lines written to a file without a name would be lost."""
    trail = opened()
    path.unlink()
    trail.before(Event(name="issue", sub="1"))
    assert [line["sub"] for line in lines(path)] == ["1"]


def test_lines_of_many_threads_and_reopenings_are_whole(
    path: Path, opened: Callable[..., AuditTrail]
) -> None:
    """None is lost, none is torn, and none is within another."""
    trail = opened()
    count = 300

    def write(thread: int) -> None:
        for number in range(count):
            (trail.before if number % 2 else trail.after)(
                Event(name="issue", sub=f"{thread}-{number}", outcome="ok" if number % 2 else "token_used")
            )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        path.rename(path.with_suffix(f".{number}"))
        trail.reopen()
    for thread in threads:
        thread.join()
    found = [line["sub"] for file in path.parent.glob("audit.*") for line in lines(file)]
    assert sorted(found) == sorted(f"{thread}-{number}" for thread in range(4) for number in range(count))


PROGRAM = """
import sys
from signer.audit import AuditTrail
from signer.events import Event
AuditTrail("stdout").before(Event(name="issue", sub="42"))
"""


def test_standard_output_is_a_trail_too(tmp_path: Path) -> None:
    """Each line is written at once, not when a buffer is full. If it is closed, that is an error, and no
    other file is used."""
    run = [sys.executable, "-c", PROGRAM]
    made = subprocess.run(run, env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["sub"] == "42"
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *run], env=environment(), capture_output=True, text=True, check=False
    )
    assert closed.returncode == 1
    assert "AUDIT_LOG: the audit trail cannot be opened: there is no standard output" in closed.stderr


def test_the_line_is_there_before_the_change_is(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock
) -> None:
    """The code that makes the change reads it."""
    trail = opened()

    class Watch:
        def before(self, event: Event) -> None:
            assert lines(path)[-1]["event"] == event.name
            assert not store.lookup("access/" + str(event.jti), event_exp, ()).revoked

        def after(self, event: Event) -> None: ...

    plain = Signer(KEY, store, clock=clock)
    token = plain.issue()
    event_exp = plain.validate(token).exp
    Signer(KEY, store, clock=clock, hooks=[trail, Watch()]).revoke(token)
    with pytest.raises(TokenError):
        plain.validate(token)


def test_every_event_is_documented_in_one_vocabulary() -> None:
    """Names of events are those of the Signer's methods, or they are explained."""
    methods = {name.partition("_")[0] for name in dir(Signer)} | {"verify_code", "authenticate", "theft"}
    assert methods >= NAMES


FILLING = """
import resource, sys
from signer.audit import AuditTrail
from signer.errors import AuditError
from signer.events import Event
trail = AuditTrail(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for number in range(100):
    try:
        trail.before(Event(name="issue", sub=f"before-{number}"))
        print(f"before-{number}")
    except AuditError:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
trail.before(Event(name="issue", sub="after"))
print("after")
"""


def test_a_disk_that_fills_up_in_a_line_costs_that_line(path: Path) -> None:
    """Half of it is in the file, its change was refused, and the next record begins on a new line."""
    made = subprocess.run(
        [sys.executable, "-c", FILLING, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    acknowledged = made.stdout.split()
    assert acknowledged[-1] == "after"
    assert 3 < len(acknowledged) < 20
    whole, torn = [], []
    for line in path.read_text().splitlines():
        try:
            whole.append(json.loads(line)["sub"])
        except ValueError:
            torn.append(line)
    assert whole == acknowledged
    assert len(torn) == 1


def test_a_line_after_a_torn_one_of_another_process_is_whole(
    path: Path, opened: Callable[..., AuditTrail]
) -> None:
    """Another worker, the command line, or this service before its restart ran out of space within a line."""
    path.write_bytes(b'{"event":"issue","outco')
    trail = opened()
    trail.before(Event(name="issue", sub="1"))
    with path.open("ab") as other:
        other.write(b'{"event":"revo')
    trail.before(Event(name="issue", sub="2"))
    first, one, second, two = path.read_text().splitlines()
    assert (json.loads(one)["sub"], json.loads(two)["sub"]) == ("1", "2")
    assert not first.endswith("}")
    assert not second.endswith("}")


def test_a_line_that_another_process_is_writing_is_awaited(
    path: Path, opened: Callable[..., AuditTrail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may pause a process within a line. It continues a little later, and no empty line is
    left."""
    monkeypatch.setattr("signer.audit._MOMENT", HANG)
    began = time.monotonic()
    line = b'{"event":"issue"}\n'
    trail = opened()
    with path.open("ab", buffering=0) as other:
        other.write(line[:5])
        going_on = threading.Timer(0.03, other.write, [line[5:]])
        going_on.start()
        trail.before(Event(name="issue", sub="1"))
        going_on.join()
    assert time.monotonic() < began + HANG / 2
    first, second = path.read_bytes().splitlines(keepends=True)
    assert first == line
    assert json.loads(second)["sub"] == "1"


def test_a_disk_that_fails_gets_a_second_line(
    path: Path, opened: Callable[..., AuditTrail], store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may be there nevertheless, and says that a change was made which was not."""

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    signer = Signer(KEY, store, clock=clock, hooks=[opened()])
    token = signer.issue()
    monkeypatch.setattr("signer.audit._sync", failing)
    with pytest.raises(AuditError):
        signer.revoke(token)
    assert [line["outcome"] for line in lines(path)] == ["ok", "ok", "audit_unavailable"]
    assert signer.validate(token)


WRITERS = """
import os, sys
sys.stdout = os.fdopen(int(sys.argv[1]), "w")
from signer.audit import AuditTrail
from signer.errors import AuditError
from signer.events import Event
import signer.audit
signer.audit.AUDIT_TIMEOUT = 0.01
trail = AuditTrail("stdout", validations=True)
for number in range(400):
    trail.after(Event(name="validate", sub="\U0001f511" * 255))
    try:
        trail.before(Event(name="issue", sub="\U0001f511" * 255))
    except AuditError:
        pass
print("ended", file=sys.stderr)
"""


@pytest.mark.slow
def test_two_writers_and_a_reader_that_stops_do_not_wait_for_ever() -> None:
    """Each finds one free page, and one of them uses it: the other must not wait in its write."""
    reader, writer = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITERS, str(writer)], env=environment(), pass_fds=[writer],
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for _ in range(200):
            os.read(reader, 4096)
        for process in processes:
            assert process.communicate(timeout=HANG)[1].endswith("ended\n")
    finally:
        os.close(reader)
        os.close(writer)
        for process in processes:
            process.kill()
            process.wait()


def test_together_lines_are_durable_before_the_changes_are_made(
    tmp_path: Path, path: Path, opened: Callable[..., AuditTrail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write to the disk for all of them, and then that of the list."""
    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store, hooks=[opened()])
        tokens = [signer.issue() for _ in range(20)]
        synced: list[int] = []

        def sync(descriptor: int) -> None:
            with closing(sqlite3.connect(tmp_path / "list.db")) as other:
                synced.append(other.execute("SELECT count(*) FROM tokens").fetchone()[0])
            os.fsync(descriptor)

        monkeypatch.setattr(audit, "_sync", sync)
        with signer.together():
            for token in tokens:
                signer.consume(token)
        assert synced == [0]
        assert store.count() == 20
        assert [line["event"] for line in lines(path)][20:] == ["consume"] * 20


def test_together_nothing_is_made_where_the_trail_is_not_durable(
    tmp_path: Path, path: Path, opened: Callable[..., AuditTrail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change gets a second line that says so, with its origin."""

    def broken(descriptor: int) -> None:
        raise OSError("I/O error")

    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store, hooks=[opened()])
        tokens = [signer.issue() for _ in range(3)]
        monkeypatch.setattr(audit, "_sync", broken)
        with suppress(AuditError), signer.together():
            for token in tokens:
                contextvars.copy_context().run(used, signer, token)
        monkeypatch.undo()
        assert store.count() == 0
        assert [(line["outcome"], line["request_id"]) for line in lines(path)[-6:]] == [
            *[("ok", "r1")] * 3,
            *[("audit_unavailable", "r1")] * 3,
        ]
        assert all(signer.consume(token).uses_left == 0 for token in tokens)


def used(signer: Signer, token: str) -> None:
    origin.set(Origin(request_id="r1"))
    signer.consume(token)


def test_a_trail_that_is_exchanged_takes_no_line_along(
    tmp_path: Path, path: Path, opened: Callable[..., AuditTrail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that are not durable yet in the old file become so before the new one begins."""
    trail = opened()
    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store, hooks=[trail])
        token = signer.issue()
        synced: list[int] = []
        monkeypatch.setattr(audit, "_sync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        inode = path.stat().st_ino
        with signer.together():
            signer.consume(token)
            path.rename(path.with_suffix(".1"))
            trail.reopen()
            assert synced == [inode]
        assert [line["event"] for line in lines(path.with_suffix(".1"))] == ["issue", "consume"]


def test_the_trail_gives_up_before_the_caller_of_a_change_does() -> None:
    """Otherwise the caller would learn that the list does not answer."""
    assert AUDIT_TIMEOUT < WRITE_TIMEOUT - 1
