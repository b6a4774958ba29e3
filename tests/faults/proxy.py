"""A wire between a service and its engine, which can be cut, delayed, held and garbled while they run."""

import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Final

_TICK: Final = 0.02
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Wire:
    """The state of the wire; the default passes everything on."""

    #: Nothing listens, and connections are reset.
    refuses: bool = False
    #: Connections are accepted and held, and nothing passes, as if packets were dropped.
    stalls: bool = False
    #: Seconds by which each part of an answer is delayed.
    delay: float = 0.0
    #: A connection is reset within an answer, after at most this many bytes of answers.
    cut_within: int = 0
    #: Every fifth byte of answers is changed, on each connection after at most this many unchanged ones.
    garbled_within: int = 0


@dataclass
class Proxy:
    """Listens on `port` of 127.0.0.1, and connects it by a `wire` to the port `target`."""

    target: int
    wire: Wire = field(default_factory=Wire)
    #: The number of connections so far.
    connections: int = 0

    def __enter__(self) -> "Proxy":
        self._is_closed = False
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_closed = True
        while self._threads:
            self._threads.pop().join(10)

    def _listen(self) -> None:
        while not self._is_closed:
            if self.wire.refuses:
                self._stop_listening()
                time.sleep(_TICK)
                continue
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))
            if select.select([self._listener], [], [], _TICK)[0]:
                self.connections += 1
                thread = threading.Thread(target=self._connect, args=(self._listener.accept()[0],))
                self._threads.append(thread)
                thread.start()
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listener:
            self._listener.close()
        self._listener = None

    def _connect(self, client: socket.socket) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self.target), timeout=5) as server:
                self._carry(client, server)
                _reset(server)
        except OSError:
            pass  # One of the two sockets is closed; the other will be soon.
        _reset(client)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Return when the connection must end. One thread reads both sides, so that no thread closes a socket
        that another one uses."""
        answer = _Answer(self.wire)
        while not (self._is_closed or self.wire.refuses):
            if self.wire is not answer.wire:
                answer = _Answer(self.wire)
            if self.wire.stalls:
                time.sleep(_TICK)
                continue
            for source in select.select([client, server], [], [], _TICK)[0]:
                data = source.recv(65536)
                if source is client:
                    server.sendall(data)
                else:
                    time.sleep(self.wire.delay)
                    client.sendall(answer.passed(data))
                if not data or answer.is_cut:
                    return


class _Answer:
    """What one side has sent since the last change of the wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.is_cut = False
        self._length = 0
        self._good = random.randint(1, max(1, wire.cut_within or wire.garbled_within))

    def passed(self, data: bytes) -> bytes:
        """The part of it that reaches the other side."""
        start, self._length = self._length, self._length + len(data)
        if self.wire.cut_within and self._length >= self._good:
            self.is_cut = True
            return data[: self._good - start]
        if self.wire.garbled_within:
            return bytes(
                byte ^ 0xA5 if at >= self._good and (at - self._good) % 5 == 0 else byte
                for at, byte in enumerate(data, start)
            )
        return data


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
