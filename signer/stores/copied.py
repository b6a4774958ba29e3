"""All that a list holds, in memory, for those who cannot ask it at every turn."""

from collections.abc import Sequence
from typing import Final

from ..claims import Claims
from ..names import row as name_of
from .base import Entry, Row
from .index import NEVER, Index


class Copied:
    """A mirror.Copy that answers as the list did. About 200 bytes a row."""

    def __init__(self) -> None:
        #: By `exp` and name in one text, which takes half the memory of the two.
        self._tokens: dict[str, tuple[bool, int, int]] = {}
        self._generations: dict[str, int] = {}
        #: Of the groups.
        self._index = Index()

    @property
    def horizon(self) -> int:
        """As in base.Entry."""
        return self._index.horizon

    @horizon.setter
    def horizon(self, horizon: int) -> None:
        if horizon <= self._index.horizon:
            return
        self._index.horizon = horizon
        # Of what expired before it the list knows nothing either. Copied first: others may read meanwhile.
        kept = {key: entry for key, entry in self._tokens.items() if int(key.partition("/")[0]) >= horizon}
        self._tokens = kept

    def __len__(self) -> int:
        return len(self._tokens) + len(self._generations)

    def add(self, row: Row) -> None:
        """See mirror.Copy."""
        if not row.generation:
            # Most are alike, and one object then.
            entry = (row.revoked, row.uses, row.rotated_at)
            self._tokens[f"{row.expires_at}/{row.name}"] = _REVOKED if entry == _REVOKED else entry
        elif row.generation > self._generations.get(row.name, 0):
            self._generations[row.name] = row.generation
            self._index.add(row)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See base.Store.is_clear."""
        return f"{claims.exp}/{name_of(claims)}" not in self._tokens and self._index.is_clear(claims, end)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See base.Store.lookup."""
        known = self._generations.get
        generation = max((known(group, 0) for group in groups), default=0)
        return Entry(*self._tokens.get(f"{exp}/{jti}", (False, 0, 0)), generation, self.horizon)


_REVOKED: Final = (True, 0, 0)
#: A copy of nothing, in which nothing is clear and nothing can be looked up.
UNKNOWING: Final = Copied()
UNKNOWING.horizon = NEVER
