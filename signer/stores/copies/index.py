"""The ids of all that a list holds, in memory: most tokens are in no list, and this is enough to know it."""

from collections.abc import Sequence
from typing import Any, Final

from ...tokens.claims import Claims
from ..contract import Row
from ..names import id_of_group, id_of_row

#: A horizon that no token lies beyond: nothing is clear.
NEVER: Final = 1 << 62
#: A set of a million takes tens of milliseconds to grow, and to go, in which no other thread runs. So the ids
#: are spread over this many small ones.
_PARTS: Final = 1024
_PLACE: Final = _PARTS - 1


class Index:
    """What the list may hold something against. It may name more than the list holds, and never less."""

    __slots__ = ("_groups", "_rows", "_size", "horizon", "last_generation")

    def __init__(self, horizon: int = 0) -> None:
        self._rows: list[set[str]] = [set() for _ in range(_PARTS)]
        self._groups: list[dict[str, int]] = [{} for _ in range(_PARTS)]
        self._size = 0
        #: These two as in base.Entry; a later generation than is known here may have been given out.
        self.last_generation = 0
        self.horizon = horizon

    def __len__(self) -> int:
        return self._size

    @property
    def parts(self) -> Sequence[Any]:
        """Whoever gives up a large index drops these one by one, after it."""
        return [*self._rows, *self._groups]

    def add(self, row: Row) -> None:
        """Note a token's row, or a group."""
        if not row.generation:
            name = id_of_row(row.name)
            rows = self._rows[hash(name) & _PLACE]
            self._size -= len(rows)
            rows.add(name)
            self._size += len(rows)
        else:
            group = id_of_group(row.name)
            groups = self._groups[hash(group) & _PLACE]
            self._size -= len(groups)
            groups[group] = max(row.generation, groups.get(group, 0))
            self._size += len(groups)
            self.last_generation = max(row.generation, self.last_generation)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See base.Store.is_clear."""
        jti = claims.jti
        place = hash(jti) & _PLACE
        # Whoever has a key may put a slash into an id, which names do not tell from their own.
        if end < self.horizon or jti in self._rows[place] or "/" in jti:
            return False
        # Of a generation that is newer than all here the list itself knows whether there ever was one.
        if not self.last_generation:
            return claims.gen == 0
        groups, gen = self._groups, claims.gen
        sub, client_id, sid = claims.sub, claims.client_id, claims.sid
        # Whatever kind of group has the id: to be taken for another costs a look-up, and no more.
        return (
            groups[place].get(jti, 0) <= gen <= self.last_generation
            and (sub is None or groups[hash(sub) & _PLACE].get(sub, 0) <= gen)
            and (
                client_id is None
                or (groups[hash(client_id) & _PLACE].get(client_id, 0) <= gen and "/" not in client_id)
            )
            and (sid is None or (groups[hash(sid) & _PLACE].get(sid, 0) <= gen and "/" not in sid))
        )
