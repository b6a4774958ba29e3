"""The feed of a list, for other services that keep a copy: GET /app/revocations, part by part.

A reader without a copy begins without a cursor, and continues with the cursor that comes with each part, for
ever. It receives all rows first, then what changes. The service remembers nothing about its readers.
"""

from base64 import urlsafe_b64decode
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from ...policy import MAX_CURSOR
from ...tokens.keys import base64url
from ..contract import Point, Row, Snapshot, Store
from ..newest import Moment, follows

#: Rows in one part.
PART_SIZE: Final = 1000
_Number = Annotated[int, Meta(ge=-(2**62), le=2**63 - 1)]


class FeedRow(Struct, frozen=True, omit_defaults=True):
    """One row of the revocation list: of a token, or of a group of tokens.

    Attributes:
        name: the token's purpose, "/" and its `jti`; or the group, such as "sub:alice".
        expires_at: the token's `exp`; of a group, the time when its row may be purged; in seconds since
            1970 (UTC).
        generation: 0 for a token. Tokens of the group that have an earlier generation (`gen`) are refused.
        revoked: whether the token was revoked.
        uses: how many uses of the token were made.
        rotated_at: when the token was traded for its successor, in seconds since 1970 (UTC); 0 if it was not.
    """

    name: str
    expires_at: int
    generation: int = 0
    revoked: bool = False
    uses: int = 0
    rotated_at: int = 0


class FeedPart(Struct, frozen=True, kw_only=True):
    """Some rows of the revocation list, oldest first, and the cursor of the next part.

    Attributes:
        status_code: the HTTP status, repeated in the body.
        rows: the rows; at most 1,000.
        next: the cursor of the next part: send it as `since`.
        is_anew: whether the list begins with these rows: forget all earlier ones.
        is_whole: whether, with these rows, the reader has everything that was in the list when it asked.
        horizon: rows of tokens that expired before this second (since 1970, UTC) may have been deleted.
        newest: the moment that the list had reached: send it as `seen` with the next request.
        follows: false if `seen` is not a moment of this list, for example because an older list was put in
            its place. Tokens that were revoked may be missing then.
    """

    status_code: int = 200
    rows: list[FeedRow]
    next: str
    is_anew: bool
    is_whole: bool
    horizon: int
    newest: str = ""
    follows: bool = True


def part_after(store: Store, cursor: str = "", seen: str = "") -> FeedPart:
    """The part of the list that comes after `cursor`; the first one for "" and for every unknown cursor. It
    says whether the list ever was at the moment `seen`, which is the `newest` of an earlier part.

    Raises:
        StoreError: the list cannot answer.
    """
    with store.snapshot() as snapshot:
        part = _part_after(snapshot, cursor)
        return replace(part, newest=_written(snapshot.point), follows=_follows(snapshot, seen))


def moment_of(newest: str) -> Moment | None:
    """The moment that a part's `newest` stands for; None if it is no moment."""
    point, _ = _read(newest)
    return point and Moment(*point)


def text_of(moment: Moment) -> str:
    """The text of a moment, to be sent as `seen`."""
    return _written(Point(*moment[:2]))


def _follows(snapshot: Snapshot, text: str) -> bool:
    seen = moment_of(text)
    if seen is None or snapshot.point == seen[:2]:
        return True
    is_known = snapshot.changes(Point(*seen[:2]), 1) is not None
    return follows(snapshot.point, seen, seen.mark if is_known else None)


def _part_after(snapshot: Snapshot, cursor: str) -> FeedPart:
    point, start = _read(cursor)
    if point and start is None:
        changes = snapshot.changes(point, PART_SIZE)
        if changes:
            is_whole = changes.end.number >= snapshot.point.number
            return _part(changes.rows, _written(changes.end), is_whole, snapshot.horizon)
        point = None
    chunk = None
    if point:
        # A reader may send a cursor of any shape.
        with suppress(LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
            chunk = snapshot.chunk(start, PART_SIZE)
    is_anew = chunk is None or point is None
    if chunk is None or point is None:
        chunk, point = snapshot.chunk(None, PART_SIZE), snapshot.point
    is_whole = chunk.next is None and point == snapshot.point
    following = _written(point, chunk.next)
    return _part(chunk.rows, following, is_whole, snapshot.horizon, is_anew=is_anew)


def _part(
    rows: Iterable[Row], following: str, is_whole: bool, horizon: int, *, is_anew: bool = False
) -> FeedPart:
    # Names that begin with "/" count guesses at codes, which only the service that checks codes needs.
    sent = [FeedRow(*row) for row in rows if not row.name.startswith("/")]
    return FeedPart(rows=sent, next=following, is_anew=is_anew, is_whole=is_whole, horizon=horizon)


def _written(point: Point, start: Any = None) -> str:
    return base64url(msgspec.json.encode([point.number, point.mark, start]))


def _read(cursor: str) -> tuple[Point | None, Any]:
    with suppress(ValueError, RecursionError):
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4) if len(cursor) <= MAX_CURSOR else "")
        number, mark, start = msgspec.json.decode(
            raw, type=tuple[_Number, _Number, list[_Number | str] | None]
        )
        return Point(number, mark), start
    return None, None


def row_of(received: FeedRow) -> Row:
    """The row that a feed's row stands for."""
    return Row(*(getattr(received, name) for name in FeedRow.__struct_fields__))
