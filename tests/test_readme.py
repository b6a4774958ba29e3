"""Every example of the README runs, and shows what really comes out."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from support.service import KEY, ROOT, Service, environment, free_port
from support.serving import call, serving

from signer.cli.parser import main
from signer.settings import Settings
from signer.web import create_app

README = (ROOT / "README.md").read_text()
BEFORE, PRODUCTION = README.split("## Production")
#: Sends what it is told and prints what comes back.
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each `$ command` of the console blocks, with the output shown under it."""
    for block in blocks(text, "console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output.strip()


class Shell:
    """One bash that runs commands as a reader would type them."""

    def __init__(self, directory: Path, port: int) -> None:
        self._port = port
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=environment(PORT=str(port), PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def run(self, command: str) -> str:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        command = command.replace("localhost:8000", f"localhost:{self._port}").replace(
            "python app.py", f"exec python {ROOT}/app.py"
        )
        self._bash.stdin.write(f"{command}\necho; echo done\n")
        self._bash.stdin.flush()
        return "".join(iter(self._bash.stdout.readline, "done\n")).strip()

    def close(self) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write("kill $(jobs -p) 2>/dev/null; wait\n")
        self._bash.stdin.close()
        self._bash.wait(30)
        assert self._bash.stdout is not None
        self._bash.stdout.close()


def matches(shown: str, printed: str) -> bool:
    return re.fullmatch(re.escape(shown).replace("…", ".*"), printed) is not None


@needs_curl
def test_the_quick_start_shows_what_comes_out(development: Service) -> None:
    """Against the development service, line by line."""
    shown = list(steps(BEFORE))
    assert len(shown) > 8
    with closing(Shell(development.directory, development.port)) as shell:
        for command, output in shown:
            assert matches(output, printed := shell.run(command)), f"{command}\n{printed}"


@needs_curl
def test_the_production_section_shows_what_comes_out(tmp_path: Path) -> None:
    """It starts its own service, makes a key and credentials, and calls with them."""
    port = free_port()
    shown = list(steps(PRODUCTION))
    assert len(shown) > 5
    with closing(Shell(tmp_path, port)) as shell:
        for command, output in shown:
            printed = shell.run(command)
            if "app.py" in command:
                waiting = (
                    f"for i in $(seq 100); do curl -s localhost:{port}/healthz && break; sleep 0.1; done"
                )
                assert "ok" in shell.run(waiting)
            else:
                assert matches(output, printed), f"{command}\n{printed}"
    assert (tmp_path / "cron.header").stat().st_mode & 0o077 == 0


def test_the_cron_line_is_the_one_shown_below_it() -> None:
    """The same call, with the header file where cron finds it."""
    (line,) = blocks(PRODUCTION, "crontab")
    command = line.split(maxsplit=5)[5].strip().replace("/etc/signer/", "")
    assert command in [shown for shown, _ in steps(PRODUCTION)]


def test_the_library_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as one program of about 20 lines and one more."""
    monkeypatch.chdir(tmp_path)
    examples = blocks(README, "python")
    assert len(examples) == 6
    namespace: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), namespace)
    with serving(namespace["app"]) as port:
        token = namespace["signer"].issue(sub="43", scope="read")
        assert call(port, "/", [("Cookie", f"__Host-session={token}")]).json == {"hello": "43"}
        assert call(port, "/").status == 403
    for name in ("signer", "audited"):
        namespace[name]._store.close()
    namespace["trail"].close()
    assert '"actor":"42"' in (tmp_path / "library-audit.log").read_text()
    assert len([line for line in examples[0].splitlines() if line.strip()]) <= 20


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    """Those of Settings, under the names of the environment, and no others."""
    table = PRODUCTION[PRODUCTION.index("| setting |") :]
    rows = {
        name: row
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`([A-Z_]+)`", row.split("|")[1])
    }
    names = {field.upper() for field in Settings.__struct_fields__ if field != "keys"} | {
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
    }
    assert set(rows) == names
    for field in Settings.__struct_fields__:
        default = getattr(Settings(), field)
        if field not in ("keys", "issuer", "app_description"):
            assert (str(default).lower() if default or type(default) is int else "none") in rows[
                field.upper()
            ] or default is False, field


def test_every_route_is_in_the_readme(development: Service) -> None:
    """And each row of it is a route that answers something else than 404."""
    table = README[README.index("| route |") : README.index("Name `purpose`")]
    routes = re.findall(r"(GET|POST|DELETE)[^/|]*?(/[a-z/{}]+)", table)
    assert len(routes) >= 8
    for method, path in routes:
        assert development.call(method, path.replace("{token}", "x")).status not in (404, 405), (method, path)
    app = create_app(Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "memory://"}))
    for route in app.app.app.routes:  # type: ignore[attr-defined]
        if isinstance(route, Route):
            assert f"{route.path_format}`" in README, route.path_format


def test_every_command_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m signer WORD`."""
    for word in set(re.findall(r"python -m signer ([\w-]+)", README)):
        with pytest.raises(SystemExit) as ended:
            main([word, "--help"])
        assert ended.value.code == 0
    assert capsys.readouterr().out


def test_the_uvicorn_line_starts_the_service(tmp_path: Path) -> None:
    """With its options as shown."""
    line = re.search(r"`uvicorn app:app ([^`]*)`", PRODUCTION)
    assert line
    command = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}", *line[1].split())
    with Service(tmp_path, command=command) as service:
        reply = service.call("GET", "/readyz")
        assert reply.status == 200
        assert "Server" not in reply.headers
        assert service.send_raw(b"GET /" + b"a" * 70_000).startswith(b"HTTP/1.1 431")


def test_the_two_commands_are_there() -> None:
    """.ci/run calls the second one as it stands; the first one's start is what the other tests start."""
    run, test = blocks(README, "sh")
    assert run.strip().endswith("app.py")
    assert test.strip().endswith("-m pytest")
