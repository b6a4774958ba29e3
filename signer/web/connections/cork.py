"""Answers are sent together. A system call empties the processor's caches and wakes other processes up; with
one between any two requests, the same work takes half as long again."""

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

#: Connections whose answers are made before the first answer is sent: about a millisecond of work.
MOST_CORKED: Final = 32
#: Bytes that one connection holds back until then.
MOST_KEPT: Final = 64 * 1024


class CorkedTransport(asyncio.Transport):
    """A connection's transport. What is written in one round of the event loop is sent at the end of that
    round, for all connections of the loop together."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._cork = _corks.setdefault(loop, _Cork())
        self._loop = loop
        self._kept: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        if not self._kept:
            self._cork.add(self, self._loop)
        self._kept.append(data)
        self._size += len(data)
        if self._size > MOST_KEPT:
            self.send()

    def send(self) -> None:
        """Send everything that was written."""
        if self._kept:
            kept, self._kept, self._size = self._kept, [], 0
            if not self._transport.is_closing():
                self._transport.write(kept[0] if len(kept) == 1 else b"".join(kept))

    def close(self) -> None:
        self.send()
        self._transport.close()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        self.send()
        with suppress(OSError):  # the connection is lost, and the protocol will be notified
            self._transport.write_eof()

    def abort(self) -> None:
        self._kept, self._size = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._size + self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class _Cork:
    """The transports of one event loop that have something to send."""

    def __init__(self) -> None:
        self._waiting: list[CorkedTransport] = []

    def add(self, transport: CorkedTransport, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting:
            loop.call_soon(self._send)
        elif len(self._waiting) >= MOST_CORKED:
            self._send()
        self._waiting.append(transport)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            try:
                transport.send()
            except Exception:  # it must not keep the other answers from being sent
                logger.exception("An answer cannot be sent")
                transport.abort()


_corks: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, _Cork]()
