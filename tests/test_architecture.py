"""The shape of the code, kept by machine."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from service import ROOT, environment

import signer
from signer import errors

PACKAGE = ROOT / "signer"
#: Each module may import those before it, and no other of ours.
ORDER = [
    "errors", "claims", "exits", "events", "files", "audit", "requests", "keys", "codec", "names", "stores.base", "stores.newest", "stores.timed", "stores.index", "stores.memory", "stores.bell", "stores.asking", "stores.mirror", "stores.sqlite_file", "stores.sqlite", "stores.postgres_pool", "stores.postgres_schema", "stores.postgres", "stores.redis_scripts", "stores.redis_link", "stores.redis", "stores.copied", "stores.following", "stores.followed", "stores.feed", "stores.remote",
    "stores.opening", "stores", "rotation", "codes", "admission", "signer", "verifier", "starlette", "credentials", "settings", "assembly", "",
    "web.calls", "web.log", "web.counters", "web.limits", "web.answers", "web.problems", "web.cells", "web.metrics", "web.messages", "web.plain", "web.cork", "web.deadline", "web.protocol", "web.bodies", "web.lookups", "web.dispatch", "web.shortcut", "web.middleware", "web.callers", "web.writer", "web.api", "web.oauth",
    "web.forward_auth", "web.docs", "web.operations", "web.openapi", "web.loop", "web.app", "web.supervisor", "web.server", "web",
    "commands", "cli", "__main__",
]  # fmt: skip
ONLY_IN = {
    "itsdangerous": {"codec"},
    "sqlite3": {"stores.sqlite", "stores.sqlite_file"},
    "psycopg": {"stores.postgres", "stores.postgres_pool"},
    "redis": {"stores.redis", "stores.redis_link"},
    "starlette": {name for name in ORDER if name.startswith("web.")} | {"starlette"},
    "uvicorn": {"web.plain", "web.protocol", "web.middleware", "web.supervisor", "web.server"},
    "httptools": {"web.messages"},
    "prometheus_client": {"web.metrics"},
    "limits": {"web.limits", "web.counters"},
}


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
    """errors <- claims <- codec <- signer <- web <- app.py, with the rest in between."""
    assert set(MODULES) == set(ORDER)
    for name, path in MODULES.items():
        ours = {
            found.removeprefix("signer").lstrip(".")
            for found in imports(path)
            if found.split(".")[0] == "signer"
        }
        packages = (
            {name.rpartition(".")[0], "stores"} if name.startswith("stores.") else {name.rpartition(".")[0]}
        )
        later = {found for found in ours & set(ORDER) if ORDER.index(found) >= ORDER.index(name)} - packages
        assert not later, f"{name} imports {later}"


def test_each_outside_library_has_its_place() -> None:
    """itsdangerous in the codec, Starlette in web, each engine in one file."""
    for name, path in MODULES.items():
        for library, places in ONLY_IN.items():
            if any(found.split(".")[0] == library for found in imports(path)):
                assert name in places, f"{name} imports {library}"


def test_only_settings_and_the_starters_see_the_environment() -> None:
    """settings.py reads it; whoever starts a program hands it over."""
    users = {name for name, path in MODULES.items() if "os.environ" in path.read_text()}
    assert users == {"commands", "web.server"}


def test_import_signer_loads_nothing_optional_and_touches_nothing(tmp_path: Path) -> None:
    """No web framework, no database, no file."""
    program = "import sys, signer; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "signer.codec" in loaded
    assert not {
        "starlette",
        "uvicorn",
        "sqlite3",
        "psycopg",
        "redis",
        "asyncio",
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
