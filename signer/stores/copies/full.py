"""All that a list holds, in memory, for those who cannot ask it at every turn."""

from collections.abc import Sequence
from typing import Final

from ...tokens.claims import Claims
from ..contract import Entry, Row
from ..names import row as name_of
from .index import NEVER, Index


class Copied:
    """A mirror.Copy that answers as the list did. About 131 bytes a token's row."""

    def __init__(self) -> None:
        #: For each hour of expiry, by `exp` and name in one text, which takes half the memory of the two.
        self._hours: dict[int, dict[str, tuple[bool, int, int]]] = {}
        #: Generation and expiry of groups.
        self._groups: dict[str, tuple[int, int]] = {}
        #: Of the groups.
        self._index = Index()
        #: As in base.Entry.
        self.last_generation = 0

    @property
    def horizon(self) -> int:
        """As in base.Entry."""
        return self._index.horizon

    @horizon.setter
    def horizon(self, horizon: int) -> None:
        is_next_hour = horizon // _HOUR > self._index.horizon // _HOUR
        if horizon <= self._index.horizon:
            return
        self._index.horizon = horizon
        # Of what expired before it the list knows nothing either. What is left of its hour does no harm.
        if is_next_hour:
            self._forget(horizon // _HOUR)

    def _forget(self, first: int) -> None:
        for hour in [hour for hour in self._hours if hour < first]:
            del self._hours[hour]
        groups = {name: known for name, known in self._groups.items() if known[1] // _HOUR >= first}
        if len(groups) < len(self._groups):
            index = Index(self._index.horizon)
            for name, (generation, expires_at) in groups.items():
                index.add(Row(name, expires_at, generation))
            # Exchanged whole, since others read them meanwhile.
            self._index, self._groups = index, groups

    def __len__(self) -> int:
        return sum(map(len, self._hours.values())) + len(self._groups)

    def add(self, row: Row) -> None:
        """See mirror.Copy."""
        if not row.generation:
            # Most are alike, and one object then.
            entry = (row.revoked, row.uses, row.rotated_at)
            tokens = self._hours.setdefault(row.expires_at // _HOUR, {})
            tokens[f"{row.expires_at}/{row.name}"] = _REVOKED if entry == _REVOKED else entry
        elif row.generation > self._groups.get(row.name, (0, 0))[0]:
            self._groups[row.name] = row.generation, row.expires_at
            self.last_generation = max(row.generation, self.last_generation)
            self._index.add(row)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See base.Store.is_clear."""
        tokens = self._hours.get(claims.exp // _HOUR)
        is_listed = tokens is not None and f"{claims.exp}/{name_of(claims)}" in tokens
        return not is_listed and self._index.is_clear(claims, end)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See base.Store.lookup."""
        known = self._groups.get
        generation = max((known(group, (0, 0))[0] for group in groups), default=0)
        entry = self._hours.get(exp // _HOUR, {}).get(f"{exp}/{jti}", (False, 0, 0))
        return Entry(*entry, generation, self.horizon, self.last_generation)


_HOUR: Final = 3600
_REVOKED: Final = (True, 0, 0)
#: A copy of nothing, in which nothing is clear and nothing can be looked up.
UNKNOWING: Final = Copied()
UNKNOWING.horizon = NEVER
