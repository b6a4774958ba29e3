"""The SQL of a list in SQLite; sqlite/file.py has the tables."""

from typing import Final

from ...policy import MAX_GROUPS

#: One statement reads one snapshot: token, groups and state as they were together.
LOOKUP: Final = f"""
SELECT revoked, uses, rotated_at,
(SELECT max(generation) FROM groups WHERE name IN ({", ".join("?" * MAX_GROUPS)})), horizon,
generation, changes, mark FROM state LEFT JOIN tokens ON expires_at = ? AND jti = ?
"""  # noqa: S608 - a number of question marks
STATE: Final = "SELECT changes, mark, horizon, generation FROM state"
NEWEST_CHANGE: Final = "SELECT changes, mark FROM state"
MARK: Final = "SELECT mark FROM log WHERE number = ?"
_INSERT: Final = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?) ON CONFLICT (expires_at, jti) DO UPDATE SET "
REVOKE: Final = _INSERT + "revoked = 1"
USE: Final = _INSERT + "uses = uses + 1"
ROTATE: Final = _INSERT + "rotated_at = excluded.rotated_at"
NEXT_GENERATION: Final = "UPDATE state SET generation = max(?, generation + 1)"
GENERATION: Final = "SELECT generation, horizon FROM state"
ADVANCE: Final = """
INSERT INTO groups VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET
generation = excluded.generation, expires_at = max(expires_at, excluded.expires_at)
"""
RAISE_HORIZON: Final = "UPDATE state SET horizon = max(horizon, ?)"
#: The first key after the step. All keys before it, from the expiring end on, are one cheap range delete.
PURGE_BOUND: Final = """
SELECT expires_at, jti FROM tokens WHERE expires_at < ? ORDER BY expires_at, jti LIMIT 1 OFFSET ?
"""
PURGE_TOKENS: Final = "DELETE FROM tokens WHERE (expires_at, jti) < (?, ?)"
PURGE_GROUPS: Final = """
DELETE FROM groups WHERE name IN
    (SELECT name FROM groups WHERE expires_at < ? ORDER BY expires_at LIMIT ?)
"""
ADD_CHANGES: Final = "UPDATE state SET changes = ?, mark = ?"
FORGET: Final = "DELETE FROM log WHERE number <= ?"
COUNT: Final = "SELECT (SELECT count(*) FROM tokens) + (SELECT count(*) FROM groups)"
#: Counts no further than the limit, and so holds up no other thread.
COUNT_UP_TO: Final = """
SELECT count(*) FROM (SELECT 1 FROM tokens UNION ALL SELECT 1 FROM groups LIMIT ?)
"""
TOKENS_AFTER: Final = """
SELECT jti, expires_at, 0, revoked, uses, rotated_at FROM tokens WHERE (expires_at, jti) > (?, ?)
ORDER BY expires_at, jti LIMIT ?
"""
GROUPS_AFTER: Final = "SELECT name, expires_at, generation FROM groups WHERE name > ? ORDER BY name LIMIT ?"
LOG_AFTER: Final = """
SELECT number, mark, log.name, coalesce(groups.expires_at, tokens.expires_at), coalesce(groups.generation, 0),
revoked, uses, rotated_at FROM log
LEFT JOIN tokens ON tokens.expires_at = log.expires_at AND jti = log.name AND log.generation = 0
LEFT JOIN groups ON groups.name = log.name AND log.generation > 0
WHERE number > ? ORDER BY number LIMIT ?
"""


def add_lines(count: int) -> str:
    """The statement that writes that many lines to the log, of five values each."""
    lines = ", ".join(["(?, ?, ?, ?, ?)"] * count)
    return f"INSERT INTO log VALUES {lines}"  # noqa: S608 - question marks
