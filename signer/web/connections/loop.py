"""The event loop: uvloop's, but its servers let in at once whoever waits."""

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

#: Connections let in before those inside are served again. It doubles for as long as that leaves some
#: waiting: a thousand are in after seven times, and of a few that come together other workers find some left.
FEW: Final = 8
#: Seconds until the next try where no descriptor is left for a connection.
PAUSE: Final = 0.5
#: Descriptors that connections leave free, for the files that requests open: the list's, pages, modules.
RESERVE: Final = 16


class Loop(uvloop.Loop):
    """uvloop's own servers let in one connection each time round (libuv 1.45, its pull request 3696). Where a
    thousand come at once and ask again as soon as they are answered, the last of them waits for half a
    million answers to others."""

    async def create_server(  # type: ignore[override]  # an Entrance is what uvicorn needs of a server
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
    """Listens at the sockets of a server that does not serve, and lets in who comes."""

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
        # Copies, since what uvloop calls sockets cannot accept.
        self.sockets = [socket.socket(fileno=os.dup(held.fileno())) for held in bound.sockets]
        for listener in self.sockets:
            listener.setblocking(False)
            listener.listen(backlog)
            self._watch(listener)

    def close(self) -> None:
        """Let nobody in any more."""
        for listener in self.sockets:
            self._loop.remove_reader(listener)
            listener.close()
        self._bound.close()

    async def wait_closed(self) -> None:
        """Return when nobody is let in; uvicorn itself waits for those inside."""
        await self._bound.wait_closed()

    def _watch(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # not closed in a pause
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
        # Those outside stay in the kernel's queue, and the loop would be woken for them without end.
        logger.error("No connection is let in for %s s: %s", PAUSE, error)
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE, self._watch, listener)


def _check_room(listener: socket.socket) -> None:
    """Raises OSError where no more than the reserve is free: the next descriptor is always the lowest."""
    following = os.dup(listener.fileno())
    os.close(following)
    if following >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
