"""The ids of all that a list holds, in memory: most tokens are in no list, and this is enough to know it."""

from typing import Final

from ..claims import Claims
from ..names import id_of_group, id_of_row
from .base import Row

#: A horizon that no token lies beyond: nothing is clear.
NEVER: Final = 1 << 62


class Index:
    """What the list may hold something against. It may name more than the list holds, and never less."""

    __slots__ = ("_groups", "_rows", "horizon", "last_generation")

    def __init__(self, horizon: int = 0) -> None:
        self._rows: set[str] = set()
        self._groups: dict[str, int] = {}
        #: These two as in base.Entry; a later generation than is known here may have been given out.
        self.last_generation = 0
        self.horizon = horizon

    def __len__(self) -> int:
        return len(self._rows) + len(self._groups)

    def add(self, row: Row) -> None:
        """Note a token's row, or a group."""
        if not row.generation:
            self._rows.add(id_of_row(row.name))
        else:
            group = id_of_group(row.name)
            self._groups[group] = max(row.generation, self._groups.get(group, 0))
            self.last_generation = max(row.generation, self.last_generation)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See base.Store.is_clear."""
        # Whoever has a key may put a slash into an id, which names do not tell from their own.
        if end < self.horizon or claims.jti in self._rows or "/" in claims.jti:
            return False
        # Of a generation that is newer than all here the list itself knows whether there ever was one.
        if not self._groups:
            return claims.gen == 0
        known, gen = self._groups.get, claims.gen
        # Whatever kind of group has the id: to be taken for another costs a look-up, and no more.
        return (
            known(claims.jti, 0) <= gen <= self.last_generation
            and known(claims.sub or "", 0) <= gen
            and known(claims.client_id or "", 0) <= gen
            and known(claims.sid or "", 0) <= gen
            and "/" not in (claims.client_id or "")
            and "/" not in (claims.sid or "")
        )
