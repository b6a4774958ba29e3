"""How a service tells its list to others, part by part: GET /app/revocations.

Who has no copy begins without a cursor, and goes on with the one that comes with each part, for ever; that
tells first all rows, then what changes. The service remembers nothing of its readers.
"""

from base64 import urlsafe_b64decode
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from ..keys import base64url
from .base import Point, Row, Store

#: Rows in one part.
PART: Final = 1000
#: Characters of a cursor.
MAX_CURSOR: Final = 1024


class Told(Struct, frozen=True, omit_defaults=True):
    """A token's row: `name` is its purpose, "/" and its `jti`, and `expires_at` its `exp`. Or, with a
    `generation`, a group, such as "sub:alice": tokens in it that have an earlier one (`gen`) are refused."""

    name: str
    expires_at: int
    generation: int = 0
    revoked: bool = False
    uses: int = 0
    rotated_at: int = 0


class Part(Struct, frozen=True, kw_only=True):
    """Some rows, oldest first, and the cursor that goes on after them.

    Attributes:
        is_anew: the list begins here: forget what was told before.
        is_whole: with these rows, all is told that was done when the service was asked.
        horizon: rows of tokens that expired before this second may be gone.
    """

    status_code: int = 200
    rows: list[Told]
    next: str
    is_anew: bool
    is_whole: bool
    horizon: int


def part_after(store: Store, cursor: str = "") -> Part:
    """The part of the list that comes after `cursor`; the first for "", or any that is not known (any more).

    Raises:
        StoreError: the list cannot answer.
    """
    point, start = _read(cursor)
    with store.snapshot() as snapshot:
        if point and start is None:
            log = snapshot.log(point, PART)
            if log:
                return _part(
                    log.rows, _written(log.end), log.end.number >= snapshot.point.number, snapshot.horizon
                )
            point = None
        is_anew, point = point is None, point or snapshot.point
        page = snapshot.page(start, PART)
        is_whole = page.next is None and point == snapshot.point
        following = _written(point, page.next)
        return _part(page.rows, following, is_whole, snapshot.horizon, is_anew=is_anew)


def _part(rows: Any, following: str, is_whole: bool, horizon: int, *, is_anew: bool = False) -> Part:
    # Guesses at codes, which begin so, are counted where the codes are checked.
    told = [Told(*row) for row in rows if not row.name.startswith("/")]
    return Part(rows=told, next=following, is_anew=is_anew, is_whole=is_whole, horizon=horizon)


def _written(point: Point, start: Any = None) -> str:
    return base64url(msgspec.json.encode([point.number, point.mark, start]))


def _read(cursor: str) -> tuple[Point | None, Any]:
    with suppress(ValueError, RecursionError):
        raw = urlsafe_b64decode(cursor[:MAX_CURSOR] + "=" * (-len(cursor) % 4))
        number, mark, start = msgspec.json.decode(raw, type=tuple[int, int, list[int | str] | None])
        return Point(number, mark), start
    return None, None


def row_of(told: Told) -> Row:
    """The row that was told."""
    return Row(*(getattr(told, name) for name in Told.__struct_fields__))
