"""A thread that asks a list, for callers that must not wait as long as a disk or a lock may take: an event
loop that stands still answers no request, and looks dead to health checks."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from ..errors import StoreError

T = TypeVar("T")


class _Question(Generic[T]):
    __slots__ = ("answer", "ask", "error", "is_answered")

    def __init__(self, ask: Callable[[], T]) -> None:
        self.ask = ask
        self.answer: T | None = None
        self.error: BaseException | None = None
        # A bare lock, because an Event takes four times as long.
        self.is_answered = threading.Lock()
        self.is_answered.acquire()


class Asker:
    """Asks one question after the other, in a thread that starts with the first one.

    Args:
        patience: seconds that each caller waits. If a question takes longer, callers are refused at once
            until it has ended.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._questions: SimpleQueue[_Question[Any] | None] = SimpleQueue()
        #: When the question under way began (time.monotonic); 0.0 if there is none.
        self._since = 0.0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, ask: Callable[[], T]) -> T:
        """What `ask` returns or raises.

        Raises:
            StoreError: it takes too long.
        """
        since = self._since
        if since and monotonic() > since + self._patience:
            raise StoreError("The list does not answer: an earlier question has not ended.")
        if self._thread is None:
            self._start()
        question = _Question(ask)
        self._questions.put(question)
        try:
            if not question.is_answered.acquire(timeout=self._patience):
                raise StoreError(f"The list does not answer within {self._patience} s.")
            if question.error is not None:
                raise question.error
            return cast(T, question.answer)
        finally:
            del question  # its error keeps this frame alive, and the frame keeps the question

    def close(self) -> bool:
        """End the thread; return whether it has ended. Ask nothing afterwards."""
        if self._thread is None:
            return True
        self._questions.put(None)
        self._thread.join(self._patience)
        return not self._thread.is_alive()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="signer-asking", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while question := self._questions.get():
            self._since = monotonic()
            try:
                question.answer = question.ask()
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                question.error = error
            self._since = 0.0
            question.is_answered.release()
            del question  # or it would keep its answer alive until the next question comes
