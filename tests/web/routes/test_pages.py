"""The pages /docs and /redoc: what they are over HTTP, and what a browser makes of them."""

import asyncio
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from starlette.types import ASGIApp, Message
from support.browser import needs_browser
from support.clock import HANG, eventually
from support.service import KEY, ROOT, Service

from signer.settings import Settings
from signer.web.app import create_app

STATIC = ROOT / "signer" / "web" / "routes" / "static"
VENDORED = [path for folder in ("swagger-ui", "redoc") for path in sorted((STATIC / folder).iterdir())]
PAGES = ["/docs", "/redoc"]
#: Markup, should a page not escape it.
TITLE = '</title><b>signer</b> & "more"'


class TestPages:
    @pytest.mark.parametrize("page", PAGES)
    def test_a_page_says_what_it_is_and_is_not_kept(self, production: Service, page: str) -> None:
        """No type to guess, no cache, no address told to others."""
        reply = production.call("GET", page)
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("page", PAGES)
    def test_its_policy_allows_this_service_and_nothing_inline(self, production: Service, page: str) -> None:
        """Scripts are files of this origin; nothing may frame the page or be sent elsewhere from it."""
        policy = policy_of(production, page)
        assert policy["script-src"] == policy["connect-src"] == ["'self'"]
        for directive in ("default-src", "base-uri", "form-action", "frame-ancestors"):
            assert policy[directive] == ["'none'"]
        sources = {source for listed in policy.values() for source in listed if "sha256-" not in source}
        assert sources <= {"'none'", "'self'", "data:", "blob:"}

    @pytest.mark.parametrize("page", PAGES)
    def test_what_a_page_names_is_relative_and_there(self, production: Service, page: str) -> None:
        """So it works behind a proxy that puts a prefix before the path."""
        named = re.findall(r'(?:src|href)="([^"]*)"', production.call("GET", page).raw.decode())
        assert len(named) == 8
        assert {"guide", "docs", "redoc"} < set(named)
        for url in named:
            assert not url.startswith(("/", "http"))
            assert production.call("GET", f"/{url}").status == 200, url

    def test_the_title_is_a_setting_and_is_text(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """APP_TITLE, whatever characters it has."""
        with Service(tmp_path_factory.mktemp("title"), {"APP_TITLE": TITLE}) as service:
            for page in PAGES:
                parser = Title()
                parser.feed(service.call("GET", page).raw.decode())
                parser.close()
                assert parser.text == TITLE

    @pytest.mark.parametrize("path", [*PAGES, "/static/docs.js"])
    def test_head_is_get_without_the_body(self, production: Service, path: str) -> None:
        """For whoever checks links."""
        got, head = production.call("GET", path), production.call("HEAD", path)
        assert (head.status, head.raw) == (200, b"")
        assert head.headers["content-length"] == str(len(got.raw))

    @pytest.mark.parametrize("path", [*PAGES, "/static/docs.js"])
    def test_other_methods_are_405(self, production: Service, path: str) -> None:
        """There is nothing to change."""
        assert production.call("POST", path).status == 405


class TestAssets:
    def test_they_are_the_files_that_were_vendored(self) -> None:
        """Each one is in SHA256SUMS, with its checksum."""
        listed = [line.split("  ") for line in (STATIC / "SHA256SUMS").read_text().splitlines()]
        found = [
            [hashlib.sha256(path.read_bytes()).hexdigest(), str(path.relative_to(STATIC))]
            for path in VENDORED
        ]
        assert sorted(listed) == sorted(found)

    def test_each_folder_has_its_licence_and_is_in_the_list(self) -> None:
        """Whoever passes them on passes their terms on."""
        assert {path.parent.name for path in VENDORED if path.name == "LICENSE"} == {"swagger-ui", "redoc"}
        readme = (STATIC / "README.txt").read_text()
        for line in ("swagger-ui-dist  5.35.0   Apache-2.0", "redoc            2.5.4    MIT"):
            assert line in readme

    @pytest.mark.parametrize(
        ("path", "media_type"),
        [("docs.js", "text/javascript"), ("redoc.css", "text/css"), ("swagger-ui/favicon-32x32.png", "image/png")],
    )  # fmt: skip
    def test_a_file_has_the_type_that_browsers_insist_on(
        self, production: Service, path: str, media_type: str
    ) -> None:
        """They are told not to guess."""
        reply = production.call("GET", f"/static/{path}")
        assert reply.raw == (STATIC / path).read_bytes()
        assert reply.headers["x-content-type-options"] == "nosniff"
        sent = reply.headers["content-type"].partition(";")[0]
        assert sent.replace("application/javascript", "text/javascript") == media_type

    def test_a_file_that_is_known_is_not_sent_again(self, production: Service) -> None:
        """304 to its own ETag, and only to that."""
        path = "/static/redoc/redoc.standalone.js"
        first = production.call("GET", path)
        assert (first.status, first.headers["cache-control"]) == (200, "no-cache")
        again = production.call("GET", path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.raw) == (304, b"")
        assert production.call("GET", path, headers={"If-None-Match": '"another"'}).raw == first.raw

    @pytest.mark.parametrize(
        "path",
        ["", "/", "/.", "/..", "/nothing.js", "/swagger-ui", "/../docs.py", "/..%2fdocs.py", "/..%2f..%2f__init__.py",
         "/%2e%2e/docs.py", "/redoc/..%2f..%2fdocs.py", "/..%5cdocs.py", "//etc/passwd", "/%2fetc%2fpasswd", "/%00",
         "/docs.js%00", "/docs.js%0a", "/" + "x" * 5000],
    )  # fmt: skip
    def test_nothing_else_is_served(self, production: Service, path: str) -> None:
        """No way out of the folder, no listing of it."""
        assert production.call("GET", f"/static{path}").status == 404

    def test_downloads_that_nobody_reads_hold_no_descriptors(self, production: Service) -> None:
        """Or strangers would leave none for the list."""

        def count() -> int:
            return len([*Path(f"/proc/{production.process.pid}/fd").iterdir()])

        before = count()
        asked = b"GET /static/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30
        with ExitStack() as connections:
            for _ in range(20):
                client = connections.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", production.port))
                client.sendall(asked)
                assert client.recv(1)  # the first of them is under way
            assert production.call("GET", "/readyz").status == 200
            assert count() <= before + 20 + 8
        eventually(lambda: count() <= before + 8)

    def test_a_path_without_end_is_not_walked(self) -> None:
        """To follow 30,000 folders that are not there took a tenth of a second of the machine."""
        steps = 0

        def count(*event: object) -> None:
            nonlocal steps
            steps += 1

        app = create_app(
            Settings.from_env({"SECRET_KEY": KEY, "DATABASE_URL": "memory://", "LOG_LEVEL": "error"})
        )
        threading.setprofile(count)
        sys.setprofile(count)
        try:
            status = asyncio.run(status_of(app, "/static/" + "a/" * 30_000))
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        assert (status, steps < 30_000) == (404, True)


async def status_of(app: ASGIApp, path: str) -> int:
    """What an application answers to a GET, without any server."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "headers": [],
        "query_string": b"",
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


def policy_of(service: Service, page: str) -> dict[str, list[str]]:
    """The sources of each directive."""
    directives = service.call("GET", page).headers["content-security-policy"].split(";")
    return {name: sources for name, *sources in map(str.split, directives)}


class Title(HTMLParser):
    """What stands in the title element."""

    text = ""

    def handle_data(self, data: str) -> None:
        if self.lasttag == "title" and not self.text:
            self.text = data


#: What a page that still moves answers; a missing element is waited for in any case.
MOVING = [ElementClickInterceptedException, ElementNotInteractableException, StaleElementReferenceException]
#: What OpenAPI has and the library does not know.
UNKNOWN: dict[str, set[str]] = {"/docs": set(), "/redoc": {"trace"}}
#: The method and the path of each operation on the page.
OPERATIONS = {
    "/docs": """return [...document.querySelectorAll(".opblock")].map((block) => [
        block.querySelector(".opblock-summary-method").textContent,
        block.querySelector(".opblock-summary-path").dataset.path])""",
    "/redoc": """return [...document.querySelectorAll("button .http-verb")].map((verb) => [
        verb.textContent.toUpperCase(), verb.nextElementSibling.textContent])""",
}


@dataclass(frozen=True)
class Browser:
    """A browser on the pages of one service."""

    driver: Chrome
    service: Service

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    def open(self, page: str) -> None:
        """Go there, wait until the document's operations are shown, and forget what was logged before."""
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        self.driver.get(self.origin + page)
        name = page.partition("?")[0]
        self.until(lambda: self.shown(name) == self.described(name))

    def shown(self, page: str) -> list[tuple[str, str]]:
        """The operations on the page."""
        found = self.driver.execute_script(OPERATIONS[page])
        return sorted((method, path) for method, path in found)

    def described(self, page: str) -> list[tuple[str, str]]:
        """Those in the document."""
        paths = self.service.call("GET", "/openapi.json").json["paths"]
        return sorted(
            (method.upper(), path) for path, item in paths.items() for method in item.keys() - UNKNOWN[page]
        )

    def complaints(self) -> list[str]:
        """What the console said since it was last asked."""
        return [entry["message"] for entry in self.log("browser") if entry["level"] != "DEBUG"]

    def requests(self) -> list[str]:
        """The URLs asked for since then, those too that the policy did not let through."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def log(self, kind: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return found

    def until(self, condition: Callable[[], bool]) -> None:
        WebDriverWait(self.driver, HANG, 0.05, MOVING).until(lambda driver: condition())

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def click(self, css: str) -> None:
        """Click the first of these, as soon as it can be clicked."""

        def clicked() -> bool:
            self.driver.find_element(By.CSS_SELECTOR, css).click()
            return True

        self.until(clicked)

    def script(self, source: str) -> object:
        return self.driver.execute_script(source)


@pytest.fixture
def browser(chromium: Chrome, production: Service) -> Browser:
    chromium.set_window_size(1400, 1200)
    return Browser(chromium, production)


@needs_browser
class TestInABrowser:
    @pytest.mark.parametrize("page", PAGES)
    def test_a_page_shows_every_operation_and_asks_this_service_only(
        self, browser: Browser, page: str
    ) -> None:
        """With nothing on the console: no violation of its policy, no error, no missing file."""
        browser.open(page)
        assert browser.driver.title == "signer"
        requested = browser.requests()
        assert f"{browser.origin}/openapi.json" in requested
        for url in requested:
            assert url.startswith((f"{browser.origin}/", f"blob:{browser.origin}/", "data:image/")), url
        assert browser.complaints() == []

    @pytest.mark.parametrize("page", PAGES)
    def test_a_page_fits_a_narrow_window(self, browser: Browser, page: str) -> None:
        """Nobody scrolls sideways."""
        browser.driver.set_window_size(500, 900)
        browser.open(page)
        assert browser.script("return document.documentElement.scrollWidth <= window.innerWidth")

    @pytest.mark.parametrize("page", PAGES)
    def test_a_script_that_got_into_a_page_does_not_run(self, browser: Browser, page: str) -> None:
        """Neither as an element nor as an attribute."""
        browser.open(page)
        browser.script(
            """const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<p onclick='window.ran = true'>x</p>");
            document.body.lastElementChild.click();"""
        )
        assert browser.script("return window.ran ?? 'nothing ran'") == "nothing ran"
        assert len(browser.complaints()) == 2

    def test_search_finds_an_operation(self, browser: Browser) -> None:
        """Its worker starts under the page's policy."""
        browser.open("/redoc")
        browser.all("[role=search] input")[0].send_keys("token")
        browser.until(lambda: bool(browser.all("[role=search] [role=menuitem]")))
        assert browser.complaints() == []

    def test_a_link_does_not_configure_the_page(self, browser: Browser) -> None:
        """`?url=` would show another document, which could send the credential to another host."""
        browser.open("/docs?url=http://127.0.0.1:1/openapi.json&persistAuthorization=true")
        assert not [url for url in browser.requests() if "127.0.0.1:1/" in url.partition("?")[0]]


@needs_browser
class TestTryItOut:
    @pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
    def test_a_pasted_credential_is_used(self, browser: Browser, scheme: str) -> None:
        """The answer of the service stands on the page: 401 without it and 200 with it."""
        browser.open("/docs")
        try_out(browser, "/app/token")
        assert execute(browser)[0] == "401"
        authorize(browser, scheme)
        status, body = execute(browser)
        assert (status, "sgt_" in body) == ("200", True)
        assert not [line for line in browser.complaints() if " 401 " not in line]

    def test_a_credential_is_forgotten_with_the_page(self, browser: Browser) -> None:
        """Nothing of it stays in the browser."""
        browser.open("/docs")
        authorize(browser, "Bearer")
        assert browser.script("return localStorage.length + sessionStorage.length") == 0
        assert browser.driver.get_cookies() == []
        browser.open("/docs")
        try_out(browser, "/app/token")
        assert execute(browser)[0] == "401"

    @pytest.mark.parametrize("page", PAGES)
    def test_title_and_description_are_seen(
        self, chromium: Chrome, tmp_path_factory: pytest.TempPathFactory, page: str
    ) -> None:
        """APP_TITLE and APP_DESCRIPTION, as text: what is markup in them does nothing."""
        settings = {"APP_TITLE": TITLE, "APP_DESCRIPTION": "Tokens of ours.<script>document.title=1</script>"}
        with Service(tmp_path_factory.mktemp("seen"), settings) as service:
            browser = Browser(chromium, service)
            browser.open(page)
            text = str(browser.script("return document.body.innerText"))
            assert TITLE in text
            assert "Tokens of ours." in text
            assert browser.script("return document.title") == TITLE
            assert not browser.complaints()

    def test_the_development_service_needs_none(self, chromium: Chrome, development: Service) -> None:
        """Its guard lets a page of its own call it."""
        browser = Browser(chromium, development)
        browser.open("/docs")
        try_out(browser, "/app/token")
        assert execute(browser)[0] == "200"


def authorize(browser: Browser, scheme: str) -> None:
    """Fill in the dialog behind "Authorize"."""
    credential = str(browser.service.credential)
    values = {"Bearer": [credential], "Basic": ["tests", credential]}[scheme]
    browser.click("button.authorize")
    (form,) = [form for form in browser.all(".auth-container") if f"(http, {scheme})" in form.text]
    for field, value in zip(form.find_elements(By.TAG_NAME, "input"), values, strict=True):
        field.send_keys(value)
    form.find_element(By.CSS_SELECTOR, "button.authorize").click()
    browser.click(".close-modal")


def try_out(browser: Browser, path: str) -> None:
    """Open the form of an operation."""
    browser.click(f".opblock:has([data-path='{path}']) .opblock-summary-control")
    browser.click(".try-out__btn")


def execute(browser: Browser) -> tuple[str, str]:
    """Send the example as it stands; return status and body of the answer."""
    if browser.all(".btn-clear"):
        browser.click(".btn-clear")
    browser.click(".execute")
    browser.until(lambda: bool(browser.all(".live-responses-table tbody .response-col_status")))
    (answer,) = browser.all(".live-responses-table tbody .response")
    status = answer.find_element(By.CSS_SELECTOR, ".response-col_status").text
    return status.split()[0], answer.find_element(By.CSS_SELECTOR, ".response-col_description").text
