"""The event loop: uvloop's, but its servers accept all waiting connections at once."""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from ssl import SSLContext
from typing import Any, Final

import uvloop

logger = logging.getLogger(__name__)

#: Connections that are accepted before the open ones are served again. The number doubles for as long as some
#: are left waiting. A thousand are accepted after seven rounds, and when only a few arrive together, other
#: workers get some of them.
FEW: Final = 8
#: Seconds until the next attempt when no file descriptor is left for a connection.
PAUSE: Final = 0.5
#: File descriptors that connections leave free for the files that requests open: the revocation list, pages,
#: modules.
RESERVE: Final = 16


class Loop(uvloop.Loop):
    """uvloop's own servers accept one connection in each round of the loop (libuv 1.45, pull request 3696).
    If a thousand clients connect at once and send a new request after each answer, the last client waits
    while the others get half a million answers."""

    async def create_server(  # type: ignore[override]  # an Entrance has what uvicorn uses of a server
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *args: Any,
        backlog: int = 100,
        ssl: SSLContext | None = None,
        **options: Any,
    ) -> "Entrance":
        bound = await super().create_server(protocol_factory, *args, ssl=ssl, start_serving=False, **options)
        enter = partial(self.connect_accepted_socket, protocol_factory, ssl=ssl)
        return Entrance(self, bound, backlog, enter)


class Entrance:
    """Listens on the sockets of a server that does not serve itself, and accepts their connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: Any,
        backlog: int,
        enter: Callable[[socket.socket], Coroutine[Any, Any, Any]],
    ) -> None:
        self._loop = loop
        self._bound = bound
        self._enter = enter
        self._at_once = FEW
        self._entering: set[asyncio.Task[Any]] = set()
        # Duplicates, because uvloop's own socket objects cannot accept.
        self.sockets = [socket.socket(fileno=os.dup(held.fileno())) for held in bound.sockets]
        for listener in self.sockets:
            listener.setblocking(False)
            listener.listen(backlog)
            self._watch(listener)

    def close(self) -> None:
        """Accept no more connections."""
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()
        self._bound.close()

    async def wait_closed(self) -> None:
        """Return when no more connections are accepted; uvicorn itself waits for the open ones."""
        await self._bound.wait_closed()

    def _watch(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # it was not closed during a pause
            self._loop.add_reader(listener, self._let_in, listener)

    def _let_in(self, listener: socket.socket) -> None:
        for _ in range(self._at_once):
            try:
                _check_room(listener)
                connection, _address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                self._at_once = FEW
                return
            except OSError as error:
                self._pause(listener, error)
                return
            task = self._loop.create_task(self._enter(connection))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)
        self._at_once *= 2

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        # Waiting connections stay in the kernel's queue, and would wake the loop up again and again.
        logger.error("No connection is accepted for %s s: %s", PAUSE, error)
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE, self._watch, listener)


def _check_room(listener: socket.socket) -> None:
    """Raises OSError if no more than the reserve is free. The system always gives out the lowest free
    descriptor, so the next one shows how many are in use."""
    following = os.dup(listener.fileno())
    os.close(following)
    if following >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
