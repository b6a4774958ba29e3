"""The ids of everything in a list, in memory. Most tokens are in no list, and the ids are enough to know
that."""

from collections.abc import Sequence
from typing import Any, Final

from ...tokens.claims import Claims
from ..contract import Row
from ..names import id_of_group, id_of_row

#: A horizon beyond every token: with it, nothing is clear.
NEVER: Final = 1 << 62
#: A set of a million ids takes tens of milliseconds to grow or to be freed, and no other thread runs
#: meanwhile. So the ids are spread over this many small sets.
_PARTS: Final = 1024
_PLACE: Final = _PARTS - 1


class Index:
    """The ids that the list may have something against: all that it holds, and possibly more."""

    __slots__ = ("_groups", "_rows", "_size", "horizon", "last_generation")

    def __init__(self, horizon: int = 0) -> None:
        self._rows: list[set[str]] = [set() for _ in range(_PARTS)]
        self._groups: list[dict[str, int]] = [{} for _ in range(_PARTS)]
        self._size = 0
        #: These two as in contract.Entry; the list may have given out later generations than this.
        self.last_generation = 0
        self.horizon = horizon

    def __len__(self) -> int:
        return self._size

    @property
    def parts(self) -> Sequence[Any]:
        """What a large index consists of. Free the index first, then these one by one."""
        return [*self._rows, *self._groups]

    def add(self, row: Row) -> None:
        """Add a token's row, or a group."""
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

    def replace(self, other: "Index") -> None:
        """Hold what `other` holds, while others read.

        Both must be indexes of the list as it is now. A reader then may meet old and new parts in any
        mixture, because each part alone names all that the list holds. The method `is_clear` stays the same
        object, so callers can keep it.
        """
        self._rows, self._groups, self._size = other._rows, other._groups, other._size
        self.last_generation, self.horizon = other.last_generation, other.horizon

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See contract.View.is_clear."""
        jti = claims.jti
        place = hash(jti) & _PLACE
        # Whoever has a key can put a slash into an id, and then it cannot be told from the rest of a name.
        if end < self.horizon or jti in self._rows[place] or "/" in jti:
            return False
        # Whether a later generation than all in here was ever given out is known to the list alone.
        if not self.last_generation:
            return claims.gen == 0
        groups, gen = self._groups, claims.gen
        sub, client_id, sid = claims.sub, claims.client_id, claims.sid
        # The kind of group is ignored: taking one for another costs a look-up, and nothing else.
        return (
            groups[place].get(jti, 0) <= gen <= self.last_generation
            and (sub is None or groups[hash(sub) & _PLACE].get(sub, 0) <= gen)
            and (
                client_id is None
                or (groups[hash(client_id) & _PLACE].get(client_id, 0) <= gen and "/" not in client_id)
            )
            and (sid is None or (groups[hash(sid) & _PLACE].get(sid, 0) <= gen and "/" not in sid))
        )
