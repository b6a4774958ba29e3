"""Every example of README and guide runs, and shows what really comes out; what the pages list is all there is."""

import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from support.pages import GUIDE, PAGES, Shell, blocks, fences, matches, steps
from support.service import KEY, ROOT, Service, free_port
from support.serving import call, serving

from signer import Signer, Store, errors, open_store
from signer.audit import AuditTrail
from signer.cli.parser import main
from signer.settings import Settings
from signer.web import create_app
from signer.web.messages.problems import _CODE
from signer.web.routes import guide
from signer.web.routes.guide import INDEX, rendered, slug

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
OPERATE, SETTINGS, HTTP = (PAGES[f"guide/{name}"] for name in ("operate", "settings", "http"))
#: Of Signer, for the service alone.
INTERNAL = {"check", "as_of"}
#: What is shown and cannot be run; test_readme.py and a test below look at the others.
NO_PROGRAMS = {"text", "promql"}
OTHERS = {("README", "sh"), ("guide/operate", "crontab")}


def pages_with(language: str) -> list[str]:
    return [name for name, text in PAGES.items() if blocks(text, language)]


class TestExamples:
    @needs_curl
    @pytest.mark.parametrize("page", pages_with("console"))
    def test_a_console_shows_what_comes_out(self, page: str, development: Service, tmp_path: Path) -> None:
        """Line by line; against the development service, unless the page starts its own."""
        shown = list(steps(PAGES[page]))
        starts = any(command.endswith("&") for command, _ in shown)
        port = free_port() if starts else development.port
        with closing(Shell(tmp_path, port, starts=starts)) as shell:
            for command, output in shown:
                printed = shell.run(command)
                if command.endswith("&"):
                    assert "ok" in printed, command
                else:
                    assert matches(output, printed), f"{command}\n{printed}"
        for secret in tmp_path.glob("*.[hk]e*"):
            assert secret.stat().st_mode & 0o077 == 0, secret

    @pytest.mark.parametrize("page", [page for page in pages_with("python") if "frameworks" not in page])
    def test_a_program_runs(self, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Block after block, as one."""
        with ExitStack() as stack:
            run(page, tmp_path, monkeypatch, stack)
        if page == "guide/library":
            assert '"actor":"42"' in (tmp_path / "library-audit.log").read_text()

    def test_the_frameworks_let_tokens_in_and_nobody_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the recipes copied beside the program."""
        monkeypatch.syspath_prepend(ROOT / "tests" / "recipes")
        with ExitStack() as stack:
            names = run("guide/frameworks", tmp_path, monkeypatch, stack)
            token = names["signer"].issue(sub="43", scope="read write")
            bearer = [("Authorization", f"Bearer {token}")]
            with serving(names["app"]) as port:
                assert call(port, "/", [("Cookie", f"__Host-session={token}")]).json == {"hello": "43"}
                assert call(port, "/").status == 403
            with serving(names["api"]) as port:
                assert call(port, "/me", bearer).json == {"sub": "43"}
                assert call(port, "/me").status == 401
            site = names["site"].test_client()
            assert site.post("/notes", headers=dict(bearer)).json == {"added_by": "43"}
            assert site.post("/notes").status_code == 401
            said: list[str] = []
            environ = {"HTTP_AUTHORIZATION": f"Bearer {token}"}
            assert names["guarded"](environ, lambda status, _: said.append(status)) == [b"43"]
            assert names["guarded"]({}, lambda status, _: said.append(status)) == []
            assert said == ["200 OK", "401 Unauthorized"]

    def test_what_does_not_run_says_why(self) -> None:
        """In the line that opens it."""
        for page, text in PAGES.items():
            for block in fences(text):
                is_run = block.language in ("console", "python") and not block.reason
                is_no_program = block.language in NO_PROGRAMS
                assert is_run or is_no_program or block.reason or (page, block.language) in OTHERS, (
                    page,
                    block,
                )
        assert len(pages_with("console")) >= 7
        assert len(pages_with("python")) >= 4


def run(page: str, directory: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> dict[str, Any]:
    """The names that the programs of a page leave behind. `stack` closes what they opened."""

    def opened(url: str) -> Store:
        store = open_store(url)
        stack.callback(store.close)
        return store

    monkeypatch.chdir(directory)
    monkeypatch.setattr("signer.open_store", opened)
    names: dict[str, Any] = {}
    for example in blocks(PAGES[page], "python"):
        exec(compile(example, page, "exec"), names)
    for value in names.values():
        if isinstance(value, AuditTrail):
            stack.callback(value.close)
    return names


class TestLists:
    def test_every_setting_is_there_with_its_default(self) -> None:
        """Those of Settings, under the names of the environment, and no others."""
        table = SETTINGS[SETTINGS.index("| setting |") : SETTINGS.index("## Command line")]
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

    def test_every_route_is_there(self, development: Service) -> None:
        """And each row of the table is a route that answers something else than 404."""
        table = HTTP[HTTP.index("| route |") : HTTP.index("Deleting more")]
        rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
        routes = [
            (re.findall("GET|POST|DELETE", row)[-1:] or ["GET"], re.findall(r"/[^`, ]*", row)) for row in rows
        ]
        assert len(routes) >= 20
        for (method,), paths in routes:
            for path in paths:
                place = path.replace("{token}", "x").replace("{page}", "tokens").replace("{path}", "docs.js")
                assert development.call(method, place).status not in (404, 405), (method, path)
        app = create_app(Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "memory://"}))
        for route in app.app.app.routes:  # type: ignore[attr-defined]
            if isinstance(route, Route):
                assert f"{route.path_format}`" in table, route.path_format

    def test_every_command_is_there_and_exists(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`python -m signer WORD`, on any page; the settings' page lists all."""
        named = {word for text in PAGES.values() for word in re.findall(r"python -m signer ([\w-]+)", text)}
        listed = set(re.findall(r"^\| `signer ([\w-]+)", SETTINGS, re.MULTILINE))
        for word in named | listed:
            with pytest.raises(SystemExit) as ended:
                main([word, "--help"])
            assert ended.value.code == 0
        with pytest.raises(SystemExit):
            main(["--help"])
        commands = re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
        assert listed >= set(commands)

    def test_the_cron_line_is_the_one_shown_below_it(self) -> None:
        """The same call, with the header file where cron finds it."""
        (line,) = [block.text for block in fences(OPERATE) if block.language == "crontab"]
        command = line.split(maxsplit=5)[5].strip().replace("/etc/signer/", "")
        assert command in [shown for shown, _ in steps(OPERATE)]

    @pytest.mark.parametrize("app", [("--factory", "signer.web:load"), ("app:app", "--app-dir", str(ROOT))])
    def test_the_uvicorn_line_starts_the_service(self, tmp_path: Path, app: tuple[str, ...]) -> None:
        """With its options as shown, where the package is installed and from a checkout."""
        begin = "uvicorn --factory signer.web:load "
        (line,) = [block.text for block in fences(OPERATE) if block.text.startswith(begin)]
        options = line.replace("\\", "").removeprefix(begin).split()
        command = ("-m", "uvicorn", *app, "--port", "{port}", *options)
        with Service(tmp_path, command=command) as service:
            reply = service.call("GET", "/readyz")
            assert reply.status == 200
            assert "Server" not in reply.headers
            assert service.send_raw(b"GET /" + b"a" * 70_000).startswith(b"HTTP/1.1 431")

    def test_every_code_is_there(self) -> None:
        """Of errors that a caller of HTTP can get, and of what HTTP itself refuses."""
        listed = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", HTTP[HTTP.index("### Codes") :]))
        raised = {
            kind.code
            for kind in vars(errors).values()
            if isinstance(kind, type)
            and issubclass(kind, errors.SignerError)
            and not kind.__subclasses__()
            and not issubclass(kind, errors.ConfigurationError)
        }
        assert raised | set(_CODE.values()) <= listed

    def test_every_method_is_there_with_its_arguments(self) -> None:
        """Of Signer, as a caller names them."""
        library = PAGES["guide/library"]
        table = library[library.index("## All methods") : library.index("## Hooks")]
        shown = dict(re.findall(r"`(\w+)\(([^`]*)\)`", table))
        for name, method in inspect.getmembers(Signer, inspect.isfunction):
            if not name.startswith("_") and name not in INTERNAL:
                arguments = [*inspect.signature(method).parameters][1:]
                named = re.findall(r"\w+", shown[name])
                assert set(named) <= set(arguments), name
                assert name.startswith(("grant", "revoke")) or named == arguments, name


class TestPages:
    def test_the_table_of_pages_is_the_folder(self) -> None:
        """In the order in which its list has them."""
        listed = re.findall(r"^\| \[.*?\]\((\S+)\.md\)", PAGES["guide/README"], re.MULTILINE)
        assert tuple(listed) == guide.PAGES
        assert {path.stem for path in GUIDE.iterdir()} == {*guide.PAGES, INDEX}

    @pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("guide/")])
    def test_a_page_is_of_the_form_that_is_served(self, page: str) -> None:
        """One heading of its own at the top, no two with one anchor, no pictures."""
        text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
        assert text.startswith("# ")
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
        anchors = [slug(heading.replace("`", "")) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
        assert len(set(anchors)) == len(anchors)
        assert "![" not in text

    @pytest.mark.parametrize("page", PAGES)
    def test_links_lead_to_files_and_headings(self, page: str) -> None:
        """On GitHub, and so in the service."""
        folder = ROOT if page == "README" else GUIDE
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
            path, _, fragment = target.partition("#")
            file = folder / path if path else GUIDE / f"{page.removeprefix('guide/')}.md"
            assert file.exists(), target
            if fragment:
                assert f'id="{fragment}"' in rendered(file.stem, "signer"), target

    def test_html_is_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing that stands in a page, nor the service's title, becomes markup."""
        text = "# <b>x</b> & y\n\n<script>x</script> [x](javascript:x) ![x](https://example.org/x.png)\n\n```html\n<i>\n```\n"
        monkeypatch.setattr(guide, "_text", lambda name: text)
        page = rendered("start", '</title><b>"')
        assert not re.search(r"<(script|b|i|img)[ >]|javascript:x\"", page)
        assert "&lt;script&gt;" in page


def test_the_pages_are_in_the_wheel() -> None:
    """Where the service finds them."""
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = package_data["signer"]
    for path in GUIDE.iterdir():
        assert any(path.relative_to(ROOT / "signer").match(pattern) for pattern in patterns), path


def test_the_service_starts_without_the_renderer() -> None:
    """It is loaded with the first page."""
    program = "import sys, signer.web; print('markdown_it' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
