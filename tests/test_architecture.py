"""The shape of the code, kept by machine."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from support.service import ROOT, environment

import signer
from signer import errors

PACKAGE = ROOT / "signer"
#: The floors of the house, from the ground up. A folder imports from itself, from the floors below, and from what
#: stands to its left. The most specific name counts: `stores.opening` is above the engines, the rest of `stores`
#: below them.
FLOORS = [
    ["policy", "errors", "exits", "files"],
    ["tokens"],
    ["events", "audit"],
    [
        "stores.names",
        "stores.contract",
        "stores.direct",
        "stores.forks",
        "stores.newest",
        "stores.asking",
        "stores.grouping",
        "stores.timed",
    ],
    ["stores.copies", "stores.memory", "stores.sqlite", "stores.postgres", "stores.redis"],
    ["stores.opening", "stores"],
    ["lifecycle"],
    ["signer", "verifier", "credentials"],
    ["environment", "settings", "assembly", ""],
    ["contrib", "starlette", "aio"],
    ["web.telemetry", "web.messages", "web.connections"],
    ["web.fastpath", "web.access", "web.routes"],
    ["web.app", "web.server", "web"],
    ["cli", "__main__"],
]
PLACES = {name: place for place, name in enumerate(name for floor in FLOORS for name in floor)}
ONLY_IN = {
    "itsdangerous": {"tokens.codec"},
    "sqlite3": {"stores.sqlite"},
    "psycopg": {"stores.postgres"},
    "redis": {"stores.redis"},
    "starlette": {"web", "contrib"},
    "uvicorn": {"web.connections", "web.server", "web.access.proxies"},
    "httptools": {"web.connections.parser"},
    "prometheus_client": {"web.telemetry.metrics"},
    "limits": {"web.access"},
    "markdown_it": {"web.routes.guide"},
}


def place(name: str) -> int:
    """Where a module stands, or the folder that it is in."""
    while name not in PLACES:
        assert "." in name, f"{name} has no place"
        name = name.rpartition(".")[0]
    return PLACES[name]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


@cache
def imports(path: Path) -> set[str]:
    """The absolute names of the modules this file imports; ours without the leading `signer.`, as "./x"."""
    found = set()
    here = ["signer", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*here[: len(here) - node.level + 1], node.module or ""]).rstrip(".")
                if node.level
                else node.module
            )
            found |= {f"{base}.{alias.name}" for alias in node.names} | {str(base)}
    return found


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def test_imports_run_one_way() -> None:
    """errors <- tokens <- stores <- lifecycle <- signer <- web <- cli, with the rest in between."""
    for name, path in MODULES.items():
        for found in imports(path):
            ours = found.removeprefix("signer").lstrip(".")
            if found.split(".")[0] != "signer" or ours == name or (ours and ours not in MODULES):
                continue
            if ours == "" and name:  # the version, which is all that the package itself gives to its modules
                continue
            if name.startswith(f"{ours}."):  # importing a module imports its package first
                continue
            assert place(ours) <= place(name), f"{name} imports {ours}"


def test_no_two_modules_import_each_other() -> None:
    """Within a layer, too."""
    graph = {
        name: {found.removeprefix("signer.") for found in imports(path)} & set(MODULES)
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in graph[name]:
                if not name.startswith(f"{other}.") and other != name:
                    visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_room_is_too_large() -> None:
    """A folder is seen at a glance, a module holds one idea, and a class is read at one sitting."""
    for folder in {path.parent for path in MODULES.values()}:
        assert len(list(folder.glob("*.py"))) <= 18, folder
    for path in MODULES.values():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 250, f"{path}: {node.name}"


def test_each_outside_library_has_its_place() -> None:
    """itsdangerous in the codec, Starlette in web, each engine in its folder."""
    for name, path in MODULES.items():
        for library, places in ONLY_IN.items():
            if any(found.split(".")[0] == library for found in imports(path)):
                assert any(f"{name}.".startswith(f"{place}.") for place in places), (
                    f"{name} imports {library}"
                )


def test_only_settings_and_the_starters_see_the_environment() -> None:
    """settings.py reads it; the two programs pass it in."""
    users = {name for name, path in MODULES.items() if "os.environ" in path.read_text()}
    assert users == {"cli.commands", "web.server.run"}


def test_import_signer_loads_nothing_optional_and_touches_nothing(tmp_path: Path) -> None:
    """No web framework, no database, no file."""
    program = "import sys, signer; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "signer.tokens.codec" in loaded
    assert not {
        "starlette",
        "uvicorn",
        "sqlite3",
        "psycopg",
        "redis",
        "asyncio",
        "markdown_it",
        "signer.web",
        "signer.cli",
    } & set(loaded)
    assert not list(tmp_path.iterdir())


def test_the_top_level_is_the_fixed_one() -> None:
    """What git tracks, beside dot-files."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert tracked, "this test asks git"
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert top <= {"signer", "app.py", "tests", "pyproject.toml", "README.md", "LICENSE"}


def test_every_error_has_a_code_of_its_own_that_its_docs_name() -> None:
    """The tree in the module's docstring is the tree."""
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SignerError)
    ]
    assert {kind.__name__ for kind in classes} == set(errors.__all__)
    assert len({kind.code for kind in classes}) == len(classes)
    leaves = [kind for kind in classes if not kind.__subclasses__()]
    assert errors.__doc__ is not None
    tree = [line.split() for line in errors.__doc__.splitlines()]
    for kind in leaves:
        assert any(
            kind.__name__ in line and any(word.rstrip(";") == kind.code for word in line) for line in tree
        ), kind


def test_every_public_name_is_there_and_documented() -> None:
    """`__all__` of the package."""
    for name in signer.__all__:
        assert getattr(signer, name).__doc__, name


def test_every_public_class_and_function_says_what_it_is() -> None:
    """Methods that fulfil a protocol have their docstring there."""
    for path in MODULES.values():
        for node in ast.parse(path.read_text()).body:
            if isinstance(
                node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_old_places_go_on_working() -> None:
    """Programs and start commands that were written by an earlier README."""
    import signer.audit
    import signer.contrib.starlette
    import signer.events
    import signer.starlette
    import signer.web.connections.loop
    import signer.web.connections.protocol
    import signer.web.loop
    import signer.web.protocol

    assert callable(signer.audit.AuditTrail)
    assert signer.events.origin.name == "signer.origin"
    assert signer.starlette.TokenBackend is signer.contrib.starlette.TokenBackend
    assert signer.web.protocol.CappedProtocol is signer.web.connections.protocol.CappedProtocol
    assert signer.web.loop.Loop is signer.web.connections.loop.Loop
