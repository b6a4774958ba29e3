"""A list whose one engine is another service: a full copy of it, made from the service's feed. Tokens are
checked here, at full speed, and a token that is revoked there is refused here within a bound.
"""

import http
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from threading import Event
from typing import Any, Final, NoReturn
from urllib.parse import quote

import msgspec

from ...errors import ConfigurationError, StoreError, StoreRequired
from ...policy import ENGINE_TIMEOUT, LOG_SIZE, PURGE_STEP, UNHEARD
from ...tokens.claims import Claims
from ..contract import Entry, Freshness, Point, Snapshot
from ..newest import NOTHING, Moment, Newest, follows
from .feed import FeedPart, moment_of, row_of, text_of
from .full import FullCopy
from .refresher import Progress, Refresher

#: Why a credential is refused, by status.
_REFUSALS: Final = {
    401: "it is no credential of it, has expired or was revoked",
    403: "its scope must have revocations:read",
}
#: Bytes of an answer: many times what a part takes.
_MAX_ANSWER: Final = 8 << 20
#: Client and credential may have the characters that the service itself allows in them.
_SERVICE: Final = (
    r"(?P<scheme>https?)://[A-Za-z0-9._~-]{1,64}:(?P<credential>[A-Za-z0-9._~-]+)@"
    r"(?:(?P<name>[A-Za-z0-9.-]+)|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~/-]*)?"
)
_MAX_PORT: Final = 65535
_READ_ONLY: Final = "This list is a copy of a service's: use, rotate and revoke tokens at the service."


class RemoteStore:
    """A Store that only looks up, in a copy made from GET /app/revocations of a service.

    Args:
        url: the service's, with the name and credential of a client (scope revocations:read) before the host:
            "https://edge:sgt_...@tokens.example.org".
        staleness: the bound in seconds: the copy is fresher, or nothing is answered.
        timeout: seconds that the service has for each part.
        newest: the newest moment of the list that was seen; None: by this process. Closed with the store.

    Raises:
        ConfigurationError: the URL has another form.
        StoreError: the service cannot be read now, or refuses the credential.
    """

    def __init__(
        self, url: str, staleness: float, timeout: float = ENGINE_TIMEOUT, newest: Newest | None = None
    ) -> None:
        self._timeout = timeout
        self._newest = newest or Newest()
        self._is_secure, self._host, self._port, self._path, credential = _parsed(url)
        self._headers = {"Accept": "application/json", "Authorization": f"Bearer {credential}"}
        self._connection: http.client.HTTPConnection | None = None
        self._cursor = ""
        self._copy = FullCopy()
        self._is_closed = Event()
        self._refresher = Refresher(self._step, self._sleep, staleness, self._is_closed.set)
        self.view = RemoteView(self._refresher)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        return self.view.lookup(jti, exp, groups)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> NoReturn:
        raise StoreRequired(_READ_ONLY)

    def use(self, jti: str, exp: int, limit: int) -> NoReturn:
        raise StoreRequired(_READ_ONLY)

    def rotate(self, jti: str, exp: int, now: int) -> NoReturn:
        raise StoreRequired(_READ_ONLY)

    def advance(self, group: str, now_ms: int, lifetime: int) -> NoReturn:
        raise StoreRequired(_READ_ONLY)

    def purge(self, before: int, limit: int = PURGE_STEP) -> NoReturn:
        raise StoreRequired(_READ_ONLY)

    def together(self) -> None:
        return None

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        raise StoreRequired(_READ_ONLY)

    def count(self) -> int:
        return len(self._refresher.copy)

    def ping(self) -> None:
        len(self._refresher.copy)

    def close(self) -> None:
        self._refresher.close()
        self._disconnect()
        self._newest.close()

    def _sleep(self, seconds: float) -> None:
        self._is_closed.wait(seconds)

    def _step(self) -> Progress:
        seen = self._newest.get()
        try:
            part = self._part(seen)
        except BaseException:
            self._disconnect()
            raise
        self._check_history(part, seen)
        if part.is_anew:
            self._copy = FullCopy()
        for row in part.rows:
            self._copy.add(row_of(row))
        self._copy.horizon = part.horizon
        self._cursor = part.next
        return Progress(self._copy if part.is_whole else None, part.is_whole)

    def _check_history(self, part: FeedPart, seen: Moment) -> None:
        newest = moment_of(part.newest)
        if newest is None:  # the previous version of the service does not send it
            return
        # Of a moment that its log has forgotten, the service cannot know the mark either.
        mark = seen.mark if newest.number - seen.number < LOG_SIZE else None
        if not (part.follows and follows(Point(*newest[:2]), seen, mark)):
            self._newest.miss(seen)
            raise StoreError(
                f"The list of the service at {self._host} went back to an older state, or is another:"
                " restart to accept it."
            )
        self._newest.see(newest)

    def _part(self, seen: Moment) -> FeedPart:
        try:
            status, body = self._asked(seen)
            if status == http.HTTPStatus.OK:
                return msgspec.json.decode(body, type=FeedPart)
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"The service at {self._host} does not answer: {_named(error)}.") from None
        except ValueError:
            status = -1  # raised below, or the answer would stay in the error's context
        if reason := _REFUSALS.get(status):
            raise StoreError(f"The service at {self._host} refuses the credential ({status}): {reason}.")
        what = "no feed of a list" if status in (-1, http.HTTPStatus.NOT_FOUND) else f"status {status}"
        raise StoreError(f"The service at {self._host} answers with {what}.")

    def _asked(self, seen: Moment) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connected()
            self._connection.connect()  # with a time limit of its own
        asked = {"since": self._cursor, "seen": "" if seen == NOTHING else text_of(seen)}
        query = "&".join(f"{name}={quote(value)}" for name, value in asked.items() if value)
        path = f"{self._path}?{query}" if query else self._path
        # A socket's time-out limits each piece only, and an answer may come byte by byte.
        latest = threading.Timer(self._timeout, _cut, (self._connection,))
        latest.start()
        try:
            self._connection.request("GET", path, headers=self._headers)
            answer = self._connection.getresponse()
            body = answer.read(_MAX_ANSWER)
            if not answer.isclosed():
                raise http.client.HTTPException("an answer without end")
            return answer.status, body
        finally:
            latest.cancel()

    def _connected(self) -> http.client.HTTPConnection:
        if not self._is_secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class RemoteView:
    """A View that has nothing but the copy."""

    is_local = False
    is_prompt = True

    def __init__(self, refresher: Refresher) -> None:
        self._refresher = refresher

    @property
    def freshness(self) -> Freshness:
        """See View."""
        return self._refresher.freshness

    def catch_up(self) -> float | None:
        """See View."""
        return self._refresher.catch_up()

    def at(self, moment: float) -> "RemoteView":
        """Any copy within the bound answers."""
        return self

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See View."""
        return self._refresher.copy.is_clear(claims, end)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See Store. The list may have given out more generations within the bound."""
        return self._refresher.copy.lookup(jti, exp, groups)._replace(unheard=UNHEARD)

    recall = lookup  # reported in the metrics as a look-up


def _parsed(url: str) -> tuple[bool, str, int, str, str]:
    # Strictly, and by one pattern: if two parsers read a URL differently, the credential could go to another
    # host.
    match = re.fullmatch(_SERVICE, url)
    if match is None or not 0 < int(match["port"] or 1) <= _MAX_PORT:
        raise ConfigurationError(
            "DATABASE_URL, where it names a service, must be like"
            " https://CLIENT:CREDENTIAL@tokens.example.org."
        )
    is_secure = match["scheme"] == "https"
    port = int(match["port"] or (443 if is_secure else 80))
    path = f"{(match['path'] or '').rstrip('/')}/app/revocations"
    return is_secure, match["name"] or match["address"], port, path, match["credential"]


def _cut(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _named(error: Any) -> str:
    # The text of some errors contains what was sent, and so the credential.
    return (
        f"{type(error).__name__}: {error.strerror}"
        if getattr(error, "strerror", "")
        else type(error).__name__
    )
