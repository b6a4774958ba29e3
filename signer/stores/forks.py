"""Keeps what one process opened from being used by its children."""

import os
from typing import Final

from ..errors import StoreError


class ForkGuard:
    """Remembers the process that it is made in.

    Args:
        advice: what to do instead, for the message.
    """

    __slots__ = ("_advice", "pid")

    def __init__(self, advice: str = "close it before, open it after") -> None:
        self._advice = advice
        #: The id of that process.
        self.pid: Final = os.getpid()

    @property
    def is_child(self) -> bool:
        """Whether this is another process, which was forked from that one."""
        return self.pid != os.getpid()

    def check(self) -> None:
        """Return only in the process that it was made in. Call it before acquiring any lock: another thread
        may have held the lock at the fork, and in the child nothing would ever release it.

        Raises:
            StoreError: this is a child of that process.
        """
        if self.pid != os.getpid():
            raise self.refusal()

    def refusal(self) -> StoreError:
        """The error for a child."""
        return StoreError(f"A list cannot be carried across fork(): {self._advice}.")
