"""All rows of a list, in memory, to answer validations without asking the list."""

from collections.abc import Sequence
from typing import Final

from ...tokens.claims import Claims
from ..contract import Entry, Row
from ..names import row as name_of
from .index import NEVER, Index


class FullCopy:
    """A loader.Copy that answers as the list did. A token's row takes about 131 bytes."""

    def __init__(self) -> None:
        #: By hour of expiry, then by `exp` and name in one text, which takes half the memory of two values.
        self._hours: dict[int, dict[str, tuple[bool, int, int]]] = {}
        #: Generation and expiry of each group.
        self._groups: dict[str, tuple[int, int]] = {}
        #: The groups' ids.
        self._index = Index()
        #: As in contract.Entry.
        self.last_generation = 0

    @property
    def horizon(self) -> int:
        """As in contract.Entry."""
        return self._index.horizon

    @horizon.setter
    def horizon(self, horizon: int) -> None:
        is_next_hour = horizon // _HOUR > self._index.horizon // _HOUR
        if horizon <= self._index.horizon:
            return
        self._index.horizon = horizon
        # The list knows nothing either about what expired before. What remains of the same hour does no harm.
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
            # Replaced as a whole, because other threads read them meanwhile.
            self._index, self._groups = index, groups

    def __len__(self) -> int:
        return sum(map(len, self._hours.values())) + len(self._groups)

    def add(self, row: Row) -> None:
        """See loader.Copy."""
        if not row.generation:
            # Most entries are equal, and share one object.
            entry = (row.revoked, row.uses, row.rotated_at)
            tokens = self._hours.setdefault(row.expires_at // _HOUR, {})
            tokens[f"{row.expires_at}/{row.name}"] = _REVOKED if entry == _REVOKED else entry
        elif row.generation > self._groups.get(row.name, (0, 0))[0]:
            self._groups[row.name] = row.generation, row.expires_at
            self.last_generation = max(row.generation, self.last_generation)
            self._index.add(row)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See contract.View.is_clear."""
        tokens = self._hours.get(claims.exp // _HOUR)
        is_listed = tokens is not None and f"{claims.exp}/{name_of(claims)}" in tokens
        return not is_listed and self._index.is_clear(claims, end)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See contract.Store.lookup."""
        known = self._groups.get
        generation = max((known(group, (0, 0))[0] for group in groups), default=0)
        entry = self._hours.get(exp // _HOUR, {}).get(f"{exp}/{jti}", (False, 0, 0))
        return Entry(*entry, generation, self.horizon, self.last_generation)


_HOUR: Final = 3600
_REVOKED: Final = (True, 0, 0)
#: Stands for a missing copy: nothing is clear in it, and nothing may be looked up in it.
NO_COPY: Final = FullCopy()
NO_COPY.horizon = NEVER
