"""The API document: it agrees with the routes, and the service agrees with it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields
from starlette.routing import Route
from support.service import KEY, Service, environment

from signer.credentials import SERVICE_SCOPES
from signer.settings import Settings
from signer.stores.copies.feed import FeedPart
from signer.tokens.claims import Claims
from signer.tokens.values import IssueRequest
from signer.web import create_app
from signer.web.messages.answers import Problem, Rotated
from signer.web.messages.bodies import ValidateRequest
from signer.web.routes.descriptions import about_members

#: They show the document and are not part of it.
PAGES = {
    "/",
    "/guide/",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/guide",
    "/guide/{page:text}",
    "/static/{path:text}",
}


def document(**settings: str) -> dict[str, Any]:
    return dict(serve(settings)[1])


def serve(settings: dict[str, str]) -> tuple[list[Any], dict[str, Any]]:
    """The routes of an application and its document."""
    app = create_app(Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "memory://"} | settings))
    routes = app.app.app.routes  # type: ignore[attr-defined]
    (shown,) = [route for route in routes if isinstance(route, Route) and route.path == "/openapi.json"]
    return routes, shown.endpoint.__self__._document()  # type: ignore[attr-defined]


def operations(paths: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, operation) for path, item in paths.items() for method, operation in item.items()]


def test_every_route_is_described_and_nothing_else() -> None:
    """Every path and method; HEAD comes with GET. A route of any method is shown as GET."""
    routes, described = serve({})
    served = {
        (route.path_format, method)
        for route in routes
        if isinstance(route, Route) and route.path not in PAGES
        for method in ({"GET"} if route.methods is None else route.methods - {"HEAD"})
    }
    assert {(path, method.upper()) for path, method, _ in operations(described["paths"])} == served


def test_every_operation_is_complete() -> None:
    """A name of its own, a summary, all parameters of its path, answers with schema, and examples of bodies."""
    described = document()["paths"]
    names = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(set(names)) == len(names)
    for path, _, operation in operations(described):
        assert operation["summary"]
        in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert in_path == set(re.findall("{(.*?)}", path))
        answers = operation["responses"]["200"]["content"]
        assert set(answers) == (
            {"text/plain", "application/openmetrics-text"} if path == "/metrics" else {"application/json"}
        )
        assert all(answer["schema"] for answer in answers.values())
        content = operation.get("requestBody", {"content": {}})["content"]
        assert all("example" in body for body in content.values()) or path == "/app/valid/{token}"


def test_a_route_of_any_method_says_so() -> None:
    """Once for each path, and never as one operation for each method."""
    routes, described = serve({})
    paths = {route.path_format for route in routes if isinstance(route, Route) and route.methods is None}
    assert paths == {"/auth", "/auth/{path}"}
    for path in paths:
        assert list(described["paths"][path]) == ["get"]
        assert "any method" in described["paths"][path]["get"]["description"]


def test_everything_has_a_description() -> None:
    """Every schema and every member of it, every parameter, header, response and way to authenticate."""
    described = document(AUTH_COOKIE="sid")
    components = described["components"]
    schemas = components["schemas"]
    named = {f"{name}.{member}": shape for name, schema in schemas.items()
             for member, shape in schema.get("properties", {}).items()}  # fmt: skip
    named |= schemas | components["responses"] | components["securitySchemes"]
    for path, method, operation in operations(described["paths"]):
        named |= {f"{method} {path} {each['name']}": each for each in operation["parameters"]}
        named |= {
            f"{method} {path} 200 {name}": header for name, header in headers(operation["responses"]["200"])
        }
    named |= {f"{name} {header}": shape for name, response in components["responses"].items()
              for header, shape in headers(response)}  # fmt: skip
    assert len(named) > 200
    assert [name for name, shape in named.items() if not sentence(shape.get("description"))] == []


def headers(response: dict[str, Any]) -> list[tuple[str, Any]]:
    return list(response["headers"].items())


def sentence(text: str | None) -> bool:
    """Not empty, and with no part of a docstring's own format left in it."""
    return bool(text) and not re.search(r"\n  |Attributes:", str(text))


def test_no_docstring_describes_what_is_not_there() -> None:
    """A member that was renamed, or a line that is no member, would show in the document."""
    for kind in (Claims, IssueRequest, ValidateRequest, Rotated, Problem, FeedPart):
        assert set(about_members(kind)) == {field.name for field in fields(kind)}


def test_every_reference_leads_somewhere() -> None:
    """And every component is used."""
    described = document()
    text = str(described)
    for kind in ("schemas", "responses"):
        components = described["components"][kind]
        assert set(re.findall(f"#/components/{kind}/([A-Za-z0-9]+)", text)) == set(components)


def test_what_a_caller_needs_is_said() -> None:
    """The scope in words, and the ways to authenticate as security; none if ANONYMOUS_SCOPES has the
    scope."""
    described = document(ANONYMOUS_SCOPES="token:issue")["paths"]
    scopes = set(re.findall(r"`((?:token|metrics|revocations):\w+)`", str(described)))
    assert scopes == SERVICE_SCOPES
    assert {} in described["/app/token"]["post"]["security"]
    assert {} not in described["/app/revoke"]["post"]["security"]
    assert "security" not in described["/app/valid/{token}"]["get"]
    assert described["/oauth/token"]["post"]["security"] == [{"credential": []}, {"client": []}]


def test_settings_show() -> None:
    """Title, description, the cookie, and the longest life a token can have here."""
    described = document(
        APP_TITLE="Ours", APP_DESCRIPTION="All.", TOKEN_MAX_TTL_MINUTES="2", AUTH_COOKIE="sid"
    )
    assert (described["info"]["title"], described["info"]["description"]) == ("Ours", "All.")
    assert (
        described["components"]["schemas"]["IssueRequest"]["properties"]["ttl"]["anyOf"][0]["maximum"] == 120
    )
    assert described["components"]["securitySchemes"]["cookie"]["name"] == "sid"


def test_it_is_served(development: Service) -> None:
    """As JSON, the same each time, and without a word about this machine."""
    reply = development.call("GET", "/openapi.json")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.json["openapi"].startswith("3.1")
    assert str(development.directory) not in reply.raw.decode()
    assert development.call("GET", "/openapi.json").raw == reply.raw


@pytest.mark.parametrize("mode", ["development", "production"])
@pytest.mark.slow
def test_schemathesis_finds_nothing(mode: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """With all of its checks: examples, limits of every value, random bodies, and sequences of calls."""
    service: Service = request.getfixturevalue(mode)
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program, "the test extra installs it"
    header = ["-H", f"Authorization: Bearer {service.credential}"] if service.credential else []
    # /auth answers methods that the document does not list, on purpose: a gateway sends the caller's method.
    (tmp_path / "schemathesis.toml").write_text(
        '[[operations]]\ninclude-path-regex = "^/auth"\nchecks.unsupported_method.enabled = false\n'
    )
    run = subprocess.run(
        [
            program, "run", f"http://127.0.0.1:{service.port}/openapi.json", *header, "--checks", "all",
            "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "15", "--seed", "1", "--no-color",
        ],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:]
    assert re.search(r"[1-9][0-9]{2,} generated, [0-9]+ passed", run.stdout)
    assert "Traceback" not in service.log
