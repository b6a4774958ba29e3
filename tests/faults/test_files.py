"""The list's file is lost, damaged, replaced or cannot be written, under load."""

import os
import random
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from faults.cluster import Central, Cluster, Engine
from faults.conftest import During, opened
from faults.disk import Disk, small_disk
from faults.recorder import Recorder
from support.clock import eventually
from support.service import ROOT, Service

from signer.stores.sqlite.file import back_up

#: Seconds that a fault lasts, and within which it is noticed.
LASTS, NOTICED = 1.8, 0.5
NOBODY = 65534
ALL = ["", "-wal", "-shm", "-bell"]
ON_FILES = pytest.mark.parametrize("engine", ["sqlite", "copy"], indirect=True)
ON_SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def holders(cluster: Cluster) -> list[Service]:
    """The services that have the file open."""
    return [cluster.engine.service] if isinstance(cluster.engine, Central) else cluster.services


def answers_during(recorder: Recorder, cluster: Cluster, since: float, kind: str) -> set[int]:
    """The statuses of the services that have the file open, from the time when the fault is noticed until its
    end."""
    ports = [service.port for service in holders(cluster)]
    return {
        call.status
        for call in list(recorder.calls)
        if call.node.port in ports and call.kind == kind and call.sent > since + NOTICED
    }


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine in the parameter, for this test only."""
    with opened(request.param, tmp_path_factory.mktemp("engine")) as made:
        yield made


@pytest.fixture
def cluster(engine: Engine, tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes, for this test only."""
    with Cluster(engine, tmp_path) as made:
        yield made


@pytest.fixture
def path(engine: Engine) -> Path:
    """The list's file."""
    return engine.directory / "tokens.db"


def move(names: list[str], source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in names:
        (source / name).rename(target / name)


@pytest.mark.parametrize(
    ("engine", "names"),
    [("sqlite", ALL), ("copy", ALL), ("sqlite", [""]), ("sqlite", ["-wal"])],
    indirect=["engine"],
)
def test_a_list_that_is_gone_answers_nothing_until_it_is_back(
    cluster: Cluster, during: During, path: Path, tmp_path: Path, names: list[str]
) -> None:
    """The files are moved away, and back; nothing else ends the fault."""
    files = [f"{path.name}{name}" for name in names]
    with during(cluster, f"list gone: {len(files)} files from {files[0]}") as recorder:
        move(files, path.parent, tmp_path / "aside")
        time.sleep(LASTS)
        for kind in ("good", "revoked", "revoke", "consume"):
            assert answers_during(recorder, cluster, recorder.began, kind) <= {503}
        move(files, tmp_path / "aside", path.parent)


@ON_FILES
def test_an_older_list_in_its_place_answers_nothing(
    cluster: Cluster, during: During, path: Path, tmp_path: Path
) -> None:
    """A backup that is a second old is moved there, on which tokens that were revoked since are valid; then
    the right file is moved back."""
    with during(cluster, "list older") as recorder:
        back_up(path, tmp_path / "older.db")
        time.sleep(1.0)
        path.rename(tmp_path / "right.db")
        (tmp_path / "older.db").rename(path)
        since = time.monotonic()
        time.sleep(LASTS)
        for kind in ("good", "revoked", "revoke", "consume"):
            assert answers_during(recorder, cluster, since, kind) <= {503}
        (tmp_path / "right.db").rename(path)


def truncate(path: Path) -> None:
    os.truncate(path, 2 * 4096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def corrupt(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


@pytest.mark.parametrize(
    ("engine", "damage"),
    [("sqlite", truncate), ("sqlite", empty), ("sqlite", corrupt), ("copy", corrupt)],
    indirect=["engine"],
)
def test_a_damaged_list_accepts_nothing_and_is_restored(
    cluster: Cluster, during: During, path: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """While no program writes, all of the list is in the file, which is damaged in place. The services that
    have it open are stopped, and started with the right file."""
    copy = tmp_path / "right.db"
    with during(cluster, f"list damaged: {damage.__name__}") as recorder:
        time.sleep(1.0)
        recorder.write(goes_on=False)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            shutil.copy(path, copy)
        damage(path)
        time.sleep(LASTS)
        used = [call.token for call in recorder.calls if call.kind == "consume" and call.status == 200]
        for service in holders(cluster):
            assert service.call("GET", "/readyz").status == 503
            for token in used[-20:]:
                assert service.call("POST", "/app/consume", {"token": token}).status in (409, 503)
            assert service.call("POST", "/app/revoke", {"token": used[0]}).status == 503
            service.stop()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        shutil.copy(copy, path)
        for service in holders(cluster):
            service.__enter__()
        recorder.write(goes_on=True)


@pytest.fixture
def disk(engine: Engine) -> Iterator[Disk]:
    """A disk of 8 MB with the list on it."""
    with small_disk(engine.directory, megabytes=8) as mounted:
        yield mounted


@ON_SQLITE
def test_a_full_disk_refuses_changes(disk: Disk, cluster: Cluster, during: During) -> None:
    """Until there is room again. What was acknowledged stays."""
    with during(cluster, "disk full") as recorder:
        disk.fill()
        since = time.monotonic()
        time.sleep(LASTS)
        eventually(lambda: bool(answers_during(recorder, cluster, since, "revoke")))
        assert answers_during(recorder, cluster, since, "revoke") == {503}
        disk.make_room()


@ON_SQLITE
def test_a_file_that_may_not_grow_refuses_changes(cluster: Cluster, during: During, path: Path) -> None:
    """RLIMIT_FSIZE for both nodes, which is similar to a full quota."""
    pids = [service.process.pid for service in cluster.services]
    with during(cluster, "file too large") as recorder:
        size = path.with_name(f"{path.name}-wal").stat().st_size
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        since = time.monotonic()
        time.sleep(LASTS)
        eventually(lambda: bool(answers_during(recorder, cluster, since, "revoke")))
        assert answers_during(recorder, cluster, since, "revoke") == {503}
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def cut_short(bell: Path) -> None:
    os.truncate(bell, random.choice([0, 1, 8, 15]))


def overwrite(bell: Path) -> None:
    with bell.open("r+b") as file:
        file.write(random.choice([bytes(16), b"\xff" * 16, os.urandom(16), os.urandom(40)]))


@ON_SQLITE
@pytest.mark.parametrize("damage", [cut_short, overwrite])
def test_a_bell_that_is_damaged_again_and_again_is_no_fault(
    cluster: Cluster, during: During, path: Path, damage: Callable[[Path], None]
) -> None:
    """No call fails, and nothing is accepted that must not be: each process that finds it damaged repairs
    it."""
    with during(cluster, f"bell damaged: {damage.__name__}") as recorder:
        until = time.monotonic() + LASTS
        while time.monotonic() < until:
            damage(path.with_name(f"{path.name}-bell"))
            time.sleep(random.uniform(0, 0.02))
        assert not [call for call in list(recorder.calls) if call.is_failure]
    assert [service.process.poll() for service in cluster.services] == [None, None]


@pytest.fixture
def nobodys() -> Iterator[Cluster]:
    """Two nodes of a user for whom permissions matter, with the list in its own folder."""
    folder = Path(tempfile.mkdtemp(prefix="signer-faults-"))
    (folder / "list").mkdir()
    run_as: tuple[str, ...] = ()
    if os.geteuid() == 0:
        run_as = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        folder.chmod(0o755)
        os.chown(folder / "list", NOBODY, NOBODY)
        readable = [*run_as, "test", "-r", str(ROOT / "app.py")]
        if shutil.which("setpriv") is None or subprocess.run(readable, check=False).returncode:
            pytest.skip("nobody cannot run the service")
    try:
        with Cluster(Engine(folder / "list"), folder, run_as=run_as) as cluster:
            yield cluster
    finally:
        (folder / "list").chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["folder", "files"])
def test_a_list_that_may_not_be_read_accepts_nothing_revoked(
    nobodys: Cluster, during: During, what: str
) -> None:
    """The folder is closed, and nothing is answered; or only the files, which the running services still have
    open."""
    folder = nobodys.engine.directory
    targets = [folder] if what == "folder" else list(folder.glob("tokens.db*"))
    with during(nobodys, f"{what} forbidden") as recorder:
        modes = [target.stat().st_mode for target in targets]
        for target in targets:
            target.chmod(0)
        since = time.monotonic()
        time.sleep(LASTS)
        assert nobodys.services[0].call("GET", "/readyz").status == 503
        if what == "folder":
            for kind in ("good", "revoked", "revoke", "consume"):
                assert answers_during(recorder, nobodys, since, kind) <= {503}
        for target, mode in zip(targets, modes, strict=True):
            target.chmod(mode & 0o777)
