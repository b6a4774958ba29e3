"""The index of a list in SQLite, and when it may be trusted.

Most tokens are in no list, and an index in memory knows that. It is trusted while the bell beside the file
has not been rung since the index was made, and for TRUST seconds at most: then the files are checked again.
"""

import logging
import threading
from collections.abc import Callable
from os import pread
from time import monotonic, sleep
from typing import Final

from ...errors import StoreError
from ...policy import MAX_ROWS, TRUST
from ...tokens.claims import Claims
from ..copies.index import Index
from ..copies.loader import Loader
from .bell import SIZE, count_in
from .lookups import Lookups
from .opened import OpenedFiles

logger = logging.getLogger(__name__)

_IsClear = Callable[[Claims, int], bool]

#: Rows that the index takes in at once, which is a third of a millisecond, and seconds until it continues.
STEP: Final = 200
_BREATH: Final = 0.001


def _never(claims: Claims, end: int) -> bool:
    return False


_NONE_TRUSTED: Final[tuple[bytes, float, _IsClear]] = (b"", 0.0, _never)


class TrustedIndex:
    """Answers `is_clear` for a list in SQLite."""

    def __init__(self, opened: OpenedFiles, lookups: Lookups) -> None:
        self._opened = opened
        self._bell_file = opened.bell.descriptor
        self._ask = lookups.ask
        #: Indexes that are not used any more, and may be large.
        self._given_up: list[Index] = []
        self.loader: Final = Loader(Index, self._given_up.append)
        #: The thread that fills the index of a long list.
        self._loading: threading.Thread | None = None
        #: The content of the bell for which an index is complete, until when (time.monotonic) it may be
        #: asked, and its method. One tuple, because threads replace it while others read it.
        self._trusted: tuple[bytes, float, _IsClear] = _NONE_TRUSTED

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See contract.View.is_clear."""
        # Read once, because another thread may replace it at any moment.
        content, until, is_clear = self._trusted
        # A bell that cannot be read is not trusted. The list is asked then, and says what is wrong.
        try:
            if monotonic() < until and pread(self._bell_file, SIZE, 0) == content:
                return is_clear(claims, end)
        except OSError:
            pass
        if self._loading is not None or self.loader.is_resting:
            return False
        ids = self._ask(self._refreshed)
        return ids is not None and ids.is_clear(claims, end)

    def close(self) -> None:
        """Trust no index any more."""
        self._trusted = _NONE_TRUSTED

    def _refreshed(self) -> Index | None:
        """The index, if it can be trusted now; it may take several calls until it can."""
        with self._opened.reading() as reader:
            if self._loading is not None:
                return None
            content = self._opened.bell.read()  # before the list is read, so that no later ring is missed
            until = monotonic() + TRUST
            with self._opened.snapshot_on(reader) as snapshot:
                is_whole = self.loader.step(snapshot, STEP)
                changes = snapshot.point.number
            # A count beyond the list's was not written by a process that changed this list. If it stayed, a
            # later ring could have the same content, and go unnoticed.
            if count_in(content) > changes:
                self._opened.bell.ring(changes)
            if is_whole and count_in(content) == changes:
                self._trusted = content, until, self.loader.copy.is_clear
                return self.loader.copy
            self._trusted = _NONE_TRUSTED  # it may be the last reference to an index that was given up
            if self.loader.is_loading:
                self._loading = threading.Thread(target=self._load, name="signer-index", daemon=True)
                self._loading.start()
            return None

    def _load(self) -> None:
        try:
            with self._opened.snapshot() as snapshot:
                is_too_long = snapshot.is_longer_than(MAX_ROWS)
            if is_too_long:
                self.loader.rest()
            while self.loader.is_loading and not self.loader.is_resting:
                with self._opened.snapshot() as snapshot:
                    self.loader.step(snapshot, STEP)
                sleep(_BREATH)
        except StoreError as error:
            logger.info("The index of the list is not loaded: %s", error)
        finally:
            self._loading = None
        self._let_go()

    def _let_go(self) -> None:
        # If a million strings were freed at once, all threads would wait.
        while self._given_up:
            parts = [*self._given_up.pop().parts]
            freed = 0
            while parts:
                freed += len(parts.pop())
                if freed > STEP:
                    freed = 0
                    sleep(_BREATH)
