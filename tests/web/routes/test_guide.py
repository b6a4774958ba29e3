"""The guide: what it is over HTTP, and what a browser makes of it."""

import json
import re
from urllib.parse import urldefrag, urljoin

import pytest
from selenium.webdriver import Chrome
from support.browser import needs_browser
from support.service import ROOT, Service

from signer.web.routes.guide import PAGES

PATHS = ["/guide", *(f"/guide/{page}" for page in PAGES)]


class TestOverHTTP:
    def test_a_command_stands_out_from_its_output(self, production: Service) -> None:
        """And neither is markup."""
        page = production.call("GET", "/guide/start").raw.decode()
        assert "<b>$ curl http://localhost:8000/app/valid/$TOKEN</b>\n{&quot;status_code&quot;" in page

    @pytest.mark.parametrize("path", PATHS)
    def test_a_page_is_there_for_everybody(self, production: Service, path: str) -> None:
        """It is public text, so no credential is asked for; no type to guess, no address sent to others."""
        reply = production.call("GET", path, headers={"Authorization": ""})
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["x-content-type-options"] == "nosniff"

    def test_it_is_there_in_development(self, development: Service) -> None:
        """Where its readers begin."""
        assert development.call("GET", "/guide/start").status == 200

    @pytest.mark.parametrize("path", PATHS)
    def test_its_policy_allows_no_script_and_no_other_host(self, production: Service, path: str) -> None:
        """Style and icon are files of this service; nothing may frame the page or be sent from it."""
        directives = production.call("GET", path).headers["content-security-policy"].split("; ")
        policy = {name: sources for name, *sources in map(str.split, directives)}
        assert policy.pop("style-src") == policy.pop("img-src") == ["'self'"]
        assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
        assert all(sources == ["'none'"] for sources in policy.values())

    @pytest.mark.parametrize("path", PATHS)
    def test_a_page_that_is_known_is_not_sent_again(self, production: Service, path: str) -> None:
        """304 to its own ETag, and only to that."""
        first = production.call("GET", path)
        assert first.headers["cache-control"] == "no-cache"
        again = production.call("GET", path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.raw) == (304, b"")
        assert production.call("GET", path, headers={"If-None-Match": '"another"'}).raw == first.raw

    @pytest.mark.parametrize("path", ["/guide", "/guide/tokens"])
    def test_head_is_get_without_the_body(self, production: Service, path: str) -> None:
        """For programs that check links."""
        got, head = production.call("GET", path), production.call("HEAD", path)
        assert (head.status, head.raw) == (200, b"")
        assert head.headers["content-length"] == str(len(got.raw))
        assert production.call("POST", path).status == 405

    @pytest.mark.parametrize(
        "path",
        ["/README", "/tokens.md", "/Tokens", "/..", "/../guide.py", "/..%2fweb%2fapp.py", "/..%2fguide%2ftokens",
         "/%2e%2e/guide/tokens", "//etc/passwd", "/%2fetc%2fpasswd", "/tokens%00", "/tokens%0a", "/tokens/",
         "/" + "x" * 5000],
    )  # fmt: skip
    def test_nothing_else_is_served(self, production: Service, path: str) -> None:
        """A name is one of the list, and no path."""
        assert production.call("GET", f"/guide{path}").status == 404

    @pytest.mark.parametrize(("path", "to"), [("/", "guide"), ("/guide/", "../guide")])
    def test_two_paths_lead_to_it(self, production: Service, path: str, to: str) -> None:
        """By a relative URL, because a proxy may put a prefix before the path."""
        answer = production.call("GET", path)
        assert (answer.status, answer.headers["location"]) == (307, to)

    def test_links_stay_in_the_service_and_lead_somewhere(self, production: Service) -> None:
        """All that a page names: relative, so that a proxy may put a prefix before it; with its heading."""
        for path in PATHS:
            page = production.call("GET", path).raw.decode()
            for target in re.findall(r'(?:href|src)="([^"]*)"', page):
                if target.startswith(("http://", "https://")):
                    continue
                assert not target.startswith("/"), (path, target)
                url, fragment = urldefrag(urljoin(path, target))
                reply = production.call("GET", url)
                assert reply.status == 200, (path, target)
                assert not fragment or f'id="{fragment}"' in reply.raw.decode(), (path, target)

    def test_a_file_that_is_not_served_is_named(self, production: Service) -> None:
        """By its path in the repository: a link would be dead."""
        page = production.call("GET", "/guide/library").raw.decode()
        assert "<code>tests/recipes/password_reset.py</code>" in page
        assert not re.search(r'href="[^"]*\.(py|md|conf|json)', page)
        for path in PATHS:
            for named in re.findall(
                r"<code>(tests/[^<…]+)</code>", production.call("GET", path).raw.decode()
            ):
                assert (ROOT / named).exists(), named

    def test_the_list_of_pages_names_all_and_this_one(self, production: Service) -> None:
        """With the headings of this page below it."""
        page = production.call("GET", "/guide/tokens").raw.decode()
        links = page.partition('<nav id="pages"')[2]
        assert re.findall(r'<li><a href="([a-z-]+)"', links) == [*PAGES]
        assert '<a href="tokens" aria-current="page">Tokens</a><ul><li><a href="#format">Format</a>' in links


@pytest.mark.slow
@needs_browser
class TestInABrowser:
    @pytest.mark.parametrize("width", [390, 1280])
    def test_every_page_is_whole_at_every_width(
        self, chromium: Chrome, production: Service, width: int
    ) -> None:
        """Nothing on the console, so no violation of the policy; no request to another host; nobody scrolls
        sideways, because wide tables and programs do so by themselves."""
        origin = f"http://127.0.0.1:{production.port}"
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        chromium.get("about:blank")
        log(chromium, "browser")
        log(chromium, "performance")
        for path in PATHS:
            chromium.get(origin + path)
            assert chromium.execute_script("return document.documentElement.scrollWidth") <= width, path
            assert chromium.execute_script("return document.styleSheets[0].cssRules.length") > 10, path
        assert log(chromium, "browser") == []
        events = [json.loads(entry["message"])["message"] for entry in log(chromium, "performance")]
        requested = [event["params"]["request"]["url"] for event in events if event["method"] == SENT]
        assert {urldefrag(url)[0].removeprefix(origin) for url in requested} >= {*PATHS, "/static/guide.css"}
        assert [url for url in requested if not url.startswith(f"{origin}/")] == []

    def test_every_link_inside_answers(self, chromium: Chrome, production: Service) -> None:
        """As the browser resolves it."""
        origin = f"http://127.0.0.1:{production.port}"
        found = set()
        for path in PATHS:
            chromium.get(origin + path)
            found |= set(
                chromium.execute_script("return [...document.links].map((link) => link.href.split('#')[0])")
            )
        inside = {url.removeprefix(origin) for url in found if url.startswith(origin)}
        assert inside == {*PATHS, "/docs", "/redoc"}
        for path in inside:
            assert production.call("GET", path).status == 200, path

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_is_legible(self, chromium: Chrome, production: Service, scheme: str) -> None:
        """With a contrast of 4.5 and more (WCAG 2.2, 1.4.3), as the reader's system asks for it."""
        chromium.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        chromium.get(f"http://127.0.0.1:{production.port}/guide/http")
        luminances = chromium.execute_script(LUMINANCES)
        paper = luminances.pop("paper")
        assert (paper > 0.5) == (scheme == "light")
        for name, ink in luminances.items():
            lighter, darker = max(ink, paper), min(ink, paper)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


SENT = "Network.requestWillBeSent"
#: Of the page, of its text, of links and of code (WCAG 2.2, relative luminance).
LUMINANCES = """
const luminance = (css) => {
  const [r, g, b] = css.match(/[0-9.]+/g).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const style = (css) => getComputedStyle(document.querySelector(css));
return {
  paper: luminance(style("body").backgroundColor),
  text: luminance(style("main p").color),
  link: luminance(style("main p a").color),
  code: luminance(style("pre code").color),
  output: luminance(style(".console code").color),
};
"""


def log(chromium: Chrome, kind: str) -> list[dict[str, str]]:
    """What was logged since it was last asked."""
    found: list[dict[str, str]] = chromium.get_log(kind)  # type: ignore[no-untyped-call]
    return [entry for entry in found if entry["level"] != "DEBUG"]
