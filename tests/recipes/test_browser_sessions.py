"""The recipe of sessions that renew themselves: in a real server, with real lists, and behind real
gateways."""

import http.client
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from threading import Barrier
from urllib.parse import parse_qs

import pytest
from deploy.gateways import COOKIE_GATEWAYS, Gateway
from recipes.browser_sessions import COOKIE, LIFE, SESSION_LIFE, BrowserSessions, routes, unavailable
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.clock import Clock
from support.service import KEY, Reply, Service
from support.serving import serving

from signer import Signer, Store, SystemUnavailable
from signer.stores.sqlite.store import SQLiteStore

LOG_IN, LOG_OUT = "/public/log-in", "/public/log-out"


def application(signer: Signer, clock: Callable[[], float]) -> Starlette:
    """An application as the recipe describes it; the password of each user is the user's name."""

    async def authenticate(request: Request) -> str | None:
        form = parse_qs((await request.body()).decode())
        return form["user"][0] if form["user"] == form["password"] else None

    def home(request: Request) -> Response:
        claims = request.state.session
        answer = JSONResponse({"user": claims and claims.sub}, headers={"Cache-Control": "max-age=60"})
        answer.set_cookie("theme", "dark")
        return answer

    return Starlette(
        routes=[Route("/", home), *routes(signer, authenticate)],
        middleware=[Middleware(BrowserSessions, signer=signer, clock=clock)],
        exception_handlers={SystemUnavailable: unavailable},
    )


class Browser:
    """Keeps the cookie of the session, as a browser does."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port = port
        self.token = token

    def call(self, path: str = "/", body: str | None = None, **more: str) -> Reply:
        """Send one request; a body is sent as a form. `more` are headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            headers = {"Cookie": f"theme=dark; {COOKIE}={self.token}"} if self.token else {}
            connection.request("GET" if body is None else "POST", path, body, headers | more)
            response = connection.getresponse()
            reply = Reply(response.status, response.headers, response.read())
        finally:
            connection.close()
        if morsel := cookie_of(reply):
            self.token = morsel.value
        return reply

    def log_in(self, user: str = "42") -> Reply:
        """With the right password."""
        return self.call(LOG_IN, f"user={user}&password={user}")

    @property
    def user(self) -> str | None:
        """The user that the application sees."""
        reply = self.call()
        assert reply.status == 200, reply.raw
        found: str | None = reply.json["user"]
        return found


def cookie_of(reply: Reply) -> "Morsel[str] | None":
    """The session cookie that the answer sets: once, as every browser accepts it, and not to be cached."""
    set_cookies = [SimpleCookie(value) for value in reply.headers.get_all("Set-Cookie", [])]
    found = [cookie[COOKIE] for cookie in set_cookies if COOKIE in cookie]
    if not found:
        return None
    (morsel,) = found
    assert (morsel["path"], morsel["samesite"], morsel["domain"]) == ("/", "Lax", "")
    assert (morsel["secure"], morsel["httponly"]) == (True, True)
    assert bool(morsel.value) == (int(morsel["max-age"]) > 0)
    return morsel


@pytest.fixture
def port(signer: Signer, clock: Clock) -> Iterator[int]:
    """The port of the application."""
    with serving(application(signer, clock)) as port:
        yield port


@pytest.fixture
def browser(port: int) -> Browser:
    """A browser in which a user has logged in."""
    browser = Browser(port)
    assert browser.log_in().status == 204
    return browser


class TestRenewal:
    def test_a_session_is_as_good_as_new_past_half_its_life(self, browser: Browser, clock: Clock) -> None:
        """Not earlier. The answer gives the cookie's life, keeps the cookies of the application, and is not
        to be cached."""
        first = browser.token
        clock.now += LIFE / 2
        reply = browser.call()
        assert (reply.json, browser.token, cookie_of(reply)) == ({"user": "42"}, first, None)
        assert reply.headers["Cache-Control"] == "max-age=60"
        clock.now += 1
        reply = browser.call()
        cookie = cookie_of(reply)
        assert cookie is not None
        assert (reply.json, cookie["max-age"]) == ({"user": "42"}, str(LIFE))
        assert browser.token != first
        assert reply.headers["Cache-Control"] == "no-store"
        assert "theme=dark" in str(reply.headers)
        assert cookie.key == "__Host-session"
        clock.now += LIFE / 2
        assert (browser.user, cookie_of(browser.call())) == ("42", None)

    def test_twenty_tabs_at_once_stay_logged_in(self, port: int, browser: Browser, clock: Clock) -> None:
        """All requests with the old cookie succeed and get the same new one; so does a retry half a minute
        later."""
        clock.now += LIFE - 60
        tabs, start = [Browser(port, browser.token) for _ in range(20)], Barrier(20)

        def asks(tab: Browser) -> str | None:
            start.wait(30)
            return tab.user

        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(asks, tabs)) == ["42"] * 20
        clock.now += 30
        assert browser.user == "42"
        tokens = {tab.token for tab in (*tabs, browser)}
        assert len(tokens) == 1
        clock.now += 30
        assert browser.user == "42"

    def test_it_ends_with_the_session_however_busy(self, browser: Browser, clock: Clock) -> None:
        """Twelve hours after the log-in, to the second. No cookie lives longer."""
        end = clock.now + SESSION_LIFE
        while clock.now + 400 < end:
            clock.now += 400
            assert browser.user == "42"
        clock.now = end - 1
        cookie = cookie_of(browser.call())
        assert cookie is not None
        assert cookie["max-age"] == "1"
        clock.now = end
        assert (browser.user, browser.token) == (None, "")
        browser.log_in()
        assert browser.user == "42"

    def test_who_is_away_is_logged_out(self, browser: Browser, clock: Clock) -> None:
        """After a life without a request the session has ended: the cookie is deleted, and the next request
        is anonymous."""
        clock.now += LIFE
        reply = browser.call()
        assert (reply.status, reply.json, browser.token) == (200, {"user": None}, "")
        assert (browser.user, cookie_of(browser.call())) == (None, None)


class TestTheft:
    def test_a_cookie_that_was_traded_ends_the_session(
        self, port: int, browser: Browser, clock: Clock
    ) -> None:
        """Whether the owner or the thief comes second, the other's successor is refused at once. Other
        sessions go on."""
        elsewhere = Browser(port)
        elsewhere.log_in()
        thief = Browser(port, browser.token)
        clock.now += LIFE - 60
        assert thief.user == "42"
        clock.now += 31
        assert elsewhere.user == "42"
        reply = browser.call()
        assert (reply.status, reply.json, browser.token) == (200, {"user": None}, "")
        assert (thief.call().json, thief.token) == ({"user": None}, "")
        assert elsewhere.user == "42"
        browser.log_in()
        assert browser.user == "42"

    def test_it_is_noticed_though_nothing_is_due(
        self, port: int, signer: Signer, browser: Browser, clock: Clock
    ) -> None:
        """A cookie that was exchanged early is checked at every request, and not only when it is due for
        renewal."""
        thief = Browser(port, signer.rotate(browser.token).token)
        assert [one.user for one in (thief, browser)] == ["42", "42"]
        clock.now += 31
        assert (browser.user, browser.token) == (None, "")
        assert (thief.user, thief.token) == (None, "")


class TestRefused:
    @pytest.mark.parametrize(
        "request_", [{"purpose": "reset"}, {"aud": "x"}, {"bind": "x"}, {"max_uses": 9}, {"ttl": 1}]
    )
    def test_no_other_token_is_a_session(
        self, port: int, signer: Signer, clock: Clock, request_: dict[str, str]
    ) -> None:
        """The cookie is deleted, and the request goes on as anonymous."""
        token = signer.issue(sub="42", **request_)  # type: ignore[arg-type]
        clock.now += 1
        browser = Browser(port, token)
        assert (browser.user, browser.token) == (None, "")

    def test_nor_is_rubbish_a_challenge_or_nothing(self, port: int, signer: Signer) -> None:
        """If there is no cookie, the answer sets none."""
        for token in ("x", "sgt_x", signer.issue_code(sub="42").token):
            browser = Browser(port, token)
            assert (browser.user, browser.token) == (None, "")
        assert cookie_of(Browser(port).call()) is None

    def test_a_list_that_is_down_is_503_and_changes_nothing(
        self, browser: Browser, store: Store, clock: Clock
    ) -> None:
        """For a request with a session, its renewal, log-in and log-out; and the answer gives no reason."""
        store.close()
        token = browser.token
        for seconds in (0, LIFE - 1):
            clock.now += seconds
            for path, body in (("/", None), (LOG_OUT, ""), (LOG_IN, "user=42&password=42")):
                reply = browser.call(path, body)
                assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
                assert (reply.raw, cookie_of(reply), browser.token) == (b"Try again.", None, token)
        browser.token = ""
        assert browser.user is None
        assert browser.log_in().status == 503

    def test_a_list_that_cannot_be_written_ends_no_session(self, tmp_path: Path, clock: Clock) -> None:
        """503 while another program locks the list; afterwards the same cookie is renewed."""
        path = tmp_path / "locked.db"
        with (
            closing(SQLiteStore(path, timeout=0.1)) as store,
            serving(application(Signer(KEY, store, clock=clock), clock)) as port,
        ):
            browser = Browser(port)
            browser.log_in()
            token = browser.token
            clock.now += LIFE - 60
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                assert (browser.call().status, browser.token) == (503, token)
            assert browser.user == "42"
            assert browser.token != token


class TestLogInAndOut:
    def test_a_form_leads_to_a_page(self, port: int) -> None:
        """A browser that sends a form gets 303, with the cookie; so it does at the log-out."""
        browser, accept = Browser(port), "text/html,application/xhtml+xml,*/*;q=0.8"
        entered = browser.call(LOG_IN, "user=42&password=42", Accept=accept)
        assert (entered.status, entered.headers["Location"], browser.user) == (303, "/", "42")
        left = browser.call(LOG_OUT, "", Accept=accept)
        assert (left.status, left.headers["Location"], browser.user) == (303, "/", None)

    def test_the_wrong_password_changes_nothing(self, port: int, browser: Browser) -> None:
        """Neither for a stranger nor for a user who is logged in."""
        stranger = Browser(port)
        for one, before in ((stranger, None), (browser, "42")):
            assert one.call(LOG_IN, "user=43&password=42").status == 403
            assert one.user == before

    def test_logging_out_ends_the_token_and_not_just_the_cookie(
        self, port: int, browser: Browser, clock: Clock
    ) -> None:
        """Also when the token is due for renewal at the same time; all its successors end, too."""
        elsewhere = Browser(port)
        elsewhere.log_in()
        clock.now += LIFE - 60
        copy, tab = Browser(port, browser.token), Browser(port, browser.token)
        assert (tab.user, elsewhere.user) == ("42", "42")
        assert browser.call(LOG_OUT, "").status == 204
        assert browser.token == ""
        assert (copy.user, tab.user, elsewhere.user) == (None, None, "42")
        for token in ("", "x", copy.token):
            assert Browser(port, token).call(LOG_OUT, "").status == 204

    def test_a_get_logs_nobody_out(self, browser: Browser) -> None:
        """An image on a page of another site sends a GET."""
        assert browser.call(LOG_OUT).status == 405
        assert browser.user == "42"

    def test_a_new_log_in_ends_the_one_before(self, port: int, browser: Browser, clock: Clock) -> None:
        """In this browser: an answer that is under way, and renews the old session, brings it not back."""
        clock.now += LIFE - 60
        tab = Browser(port, browser.token)
        assert tab.user == "42"
        assert browser.log_in("43").status == 204
        assert browser.user == "43"
        browser.token = tab.token
        assert browser.user is None


@pytest.mark.parametrize("kind", COOKIE_GATEWAYS, ids=lambda kind: kind.__name__.lower())
def test_behind_a_gateway_as_its_file_stands(kind: type[Gateway], tmp_path: Path) -> None:
    """Log-in, renewal by the application, and log-out; the service and the application use one list."""
    if kind.program() is None:
        pytest.skip(f"needs {' or '.join(kind.programs)}")
    settings = {"SECRET_KEY": KEY, "AUTH_COOKIE": COOKIE, "DATABASE_URL": f"sqlite:///{tmp_path}/list.db"}
    ahead = Clock()
    ahead.now = time.time()
    with (
        Service(tmp_path, settings) as service,
        closing(SQLiteStore(tmp_path / "list.db")) as store,
        serving(application(Signer(KEY, store), ahead)) as port,
        kind(tmp_path, service.port, port) as gateway,
    ):
        browser = Browser(gateway.port)
        assert browser.call().status == 401
        browser.log_in()
        first = browser.token
        assert (browser.user, browser.token) == ("42", first)
        ahead.now += LIFE - 60
        assert browser.user == "42"
        renewed = browser.token
        assert renewed != first
        ahead.now -= LIFE - 60
        assert (browser.user, browser.token) == ("42", renewed)
        assert browser.call(LOG_OUT, "").status == 204
        assert browser.token == ""
        assert Browser(gateway.port, renewed).call().status == 401
