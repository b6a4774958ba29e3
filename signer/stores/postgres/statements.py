"""The tables of a list in PostgreSQL, how they are made and upgraded, and all SQL.

Names are stored as bytes, so that every text can be a name in a database of any encoding and collation.
"""

import logging
import secrets
from typing import Final

from ...errors import StoreError
from .pool import Connection

logger = logging.getLogger(__name__)

VERSION: Final = 2
#: The previous version. Opening such a list upgrades it, and programs of that version refuse it from then on.
_UPGRADED: Final = 1
#: "sgtl". Of several processes that start, the one that holds this lock makes the tables.
_LOCK: Final = 0x7367746C
#: The log has one line for the beginning, and for each of the newest changes; the name is empty if no row
#: changed.
_TABLES: Final = """
CREATE TABLE signer.tokens (
    expires_at bigint NOT NULL,
    jti bytea NOT NULL,
    revoked boolean NOT NULL,
    uses bigint NOT NULL,
    rotated_at bigint NOT NULL,
    PRIMARY KEY (expires_at, jti)
);
CREATE TABLE signer.groups (
    name bytea PRIMARY KEY,
    generation bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX groups_by_expiry ON signer.groups (expires_at);
CREATE TABLE signer.state (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version bigint NOT NULL,
    generation bigint NOT NULL,
    horizon bigint NOT NULL,
    changes bigint NOT NULL,
    mark bigint NOT NULL
);
CREATE TABLE signer.log (
    number bigint PRIMARY KEY,
    mark bigint NOT NULL,
    name bytea NOT NULL,
    expires_at bigint NOT NULL,
    generation bigint NOT NULL
);
"""
_FIRST_STATE: Final = """
WITH line AS (INSERT INTO signer.log VALUES (0, %(mark)s, '', 0, 0))
INSERT INTO signer.state (version, generation, horizon, changes, mark) VALUES (%(version)s, 0, 0, 0, %(mark)s)
"""
#: Later than any token expires.
_NEVER: Final = (1 << 63) - 1
#: A row in each of two tables, which never expires and which no reader gets. If it is gone, others may be
#: gone, too, as after a TRUNCATE, and then a look-up would find nothing against any token.
_SENTINELS: Final = f"""
INSERT INTO signer.tokens VALUES ({_NEVER}, '', true, 0, 0);
INSERT INTO signer.groups VALUES ('', 0, {_NEVER});
"""  # noqa: S608 - a number of ours
_HAS_SENTINELS: Final = f"""
EXISTS (SELECT 1 FROM signer.tokens WHERE expires_at = {_NEVER} AND jti = '')
AND EXISTS (SELECT 1 FROM signer.groups WHERE name = '')
"""  # noqa: S608
IS_WHOLE: Final = f"SELECT {_HAS_SENTINELS}"
#: Version 1 had no such rows. Its log shows whether it is whole: every change that has not expired must be
#: there.
_WAS_WHOLE: Final = """
SELECT NOT EXISTS (
    SELECT 1 FROM signer.state CROSS JOIN signer.log AS line
    LEFT JOIN signer.tokens AS token
        ON line.generation = 0 AND token.expires_at = line.expires_at AND token.jti = line.name
    LEFT JOIN signer.groups AS one ON line.generation > 0 AND one.name = line.name
    WHERE line.expires_at >= horizon AND line.name <> '' AND token.jti IS NULL AND one.name IS NULL
)
"""
#: What every reader checks. The last value is the log's mark of the newest change it has seen, if there are
#: newer.
_STATE: Final = """
state.version, current_setting('transaction_read_only'), state.changes, state.mark,
CASE WHEN state.changes <> %(seen)s THEN (SELECT mark FROM signer.log WHERE number = %(seen)s) END
"""
#: One statement reads one snapshot: token, groups and state as they were together.
LOOKUP: Final = f"""
SELECT revoked, uses, rotated_at,
(SELECT max(generation) FROM signer.groups WHERE name = ANY (%(groups)s::bytea[])), horizon,
state.generation, {_HAS_SENTINELS}, {_STATE}
FROM signer.state LEFT JOIN signer.tokens ON expires_at = %(exp)s::bigint AND jti = %(jti)s
"""  # noqa: S608
#: For this transaction only. No function or table in `public` replaces one of the server's own, and
#: durability does not depend on what other users of the database have set.
_LIMITS: Final = """
SELECT pg_catalog.set_config('search_path', 'pg_catalog', true);
SELECT set_config('statement_timeout', {timeout}, true), set_config('lock_timeout', {timeout}, true),
set_config('idle_in_transaction_session_timeout', {timeout}, true);
"""
_SETTINGS: Final = f"""{_LIMITS}
SELECT set_config('synchronous_commit', 'on', true)
WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply');
"""
#: Several statements in one round trip, with the lock that all writers wait for.
BEGIN: Final = f"""
BEGIN ISOLATION LEVEL READ COMMITTED; {_SETTINGS}
SELECT {_HAS_SENTINELS}, {_STATE} FROM signer.state FOR UPDATE
"""  # noqa: S608
#: It does not check the sentinels: usually nothing has changed, and then no table is read.
BEGIN_SNAPSHOT: Final = f"""
BEGIN ISOLATION LEVEL REPEATABLE READ; {_SETTINGS}
SELECT horizon, generation, true, {_STATE} FROM signer.state
"""  # noqa: S608
#: Without the writers' lock, because no process writes rows that expired before the horizon. Nor does it wait
#: for a disk: rows that come back after a crash are deleted by the next purge.
BEGIN_PURGE: Final = f"""
BEGIN ISOLATION LEVEL READ COMMITTED; {_LIMITS} SELECT set_config('synchronous_commit', 'off', true)
"""
#: Without the time limit, which would end the wait for a synchronous standby as if the standby had the
#: change.
COMMIT: Final = "SELECT set_config('statement_timeout', '0', true); COMMIT"
REVOKE: Final = """
WITH known AS (
    SELECT uses, rotated_at,
    (SELECT max(generation) FROM signer.groups WHERE name = ANY (%(groups)s::bytea[])), horizon,
    state.generation AS last, revoked
    FROM signer.state LEFT JOIN signer.tokens ON expires_at = %(exp)s::bigint AND jti = %(jti)s
), made AS (
    INSERT INTO signer.tokens SELECT %(exp)s, %(jti)s, true, 0, 0 FROM known WHERE horizon <= %(exp)s
    ON CONFLICT (expires_at, jti) DO UPDATE SET revoked = true RETURNING true
)
SELECT (SELECT * FROM made), known.* FROM known
"""
USE: Final = """
INSERT INTO signer.tokens AS token
SELECT %(exp)s, %(jti)s, false, 1, 0 FROM signer.state WHERE horizon <= %(exp)s AND 0 < %(limit)s
ON CONFLICT (expires_at, jti) DO UPDATE SET uses = token.uses + 1
WHERE NOT token.revoked AND token.rotated_at = 0 AND token.uses < %(limit)s
RETURNING uses
"""
ROW: Final = """
SELECT revoked, uses, rotated_at, horizon
FROM signer.state LEFT JOIN signer.tokens ON expires_at = %s AND jti = %s
"""
ROTATE: Final = """
INSERT INTO signer.tokens VALUES (%s, %s, false, 0, %s)
ON CONFLICT (expires_at, jti) DO UPDATE SET rotated_at = excluded.rotated_at
"""
ADVANCE: Final = """
WITH next AS (
    UPDATE signer.state SET generation = greatest(%(now)s, generation + 1)
    RETURNING generation, greatest(generation / 1000, horizon) + %(lifetime)s AS expires_at
)
INSERT INTO signer.groups AS old SELECT %(name)s, generation, expires_at FROM next
ON CONFLICT (name) DO UPDATE SET
    generation = excluded.generation, expires_at = greatest(old.expires_at, excluded.expires_at)
RETURNING generation, expires_at
"""
RAISE_HORIZON: Final = "UPDATE signer.state SET horizon = greatest(horizon, %s)"
#: The first key after the step. All keys before it, from the expiring end on, are one cheap range delete.
PURGE_BOUND: Final = """
SELECT expires_at, jti FROM signer.tokens WHERE expires_at < %s ORDER BY expires_at, jti LIMIT 1 OFFSET %s
"""
PURGE_TOKENS: Final = "DELETE FROM signer.tokens WHERE (expires_at, jti) < (%s, %s)"
#: The condition stands twice: if a group is advanced meanwhile, only the outer condition is evaluated again.
PURGE_GROUPS: Final = """
DELETE FROM signer.groups WHERE expires_at < %(before)s AND name = ANY (ARRAY(
    SELECT name FROM signer.groups WHERE expires_at < %(before)s ORDER BY expires_at LIMIT %(limit)s
))
"""
#: Without the two sentinels.
COUNT: Final = "SELECT (SELECT count(*) FROM signer.tokens) + (SELECT count(*) FROM signer.groups) - 2"
FINISH: Final = """
WITH written AS (
    INSERT INTO signer.log SELECT %(known)s + number, %(mark)s, name, expires_at, generation
    FROM unnest(%(names)s::bytea[], %(exps)s::bigint[], %(generations)s::bigint[])
    WITH ORDINALITY AS line (name, expires_at, generation, number)
), forgotten AS (DELETE FROM signer.log WHERE number <= %(forgotten)s)
UPDATE signer.state SET changes = %(changes)s, mark = %(mark)s
"""
NOTIFY: Final = " RETURNING pg_notify('signer', '')"
TOKENS_AFTER: Final = f"""
SELECT jti, expires_at, 0, revoked, uses, rotated_at FROM signer.tokens
WHERE (expires_at, jti) > (%s, %s) AND expires_at < {_NEVER} ORDER BY expires_at, jti LIMIT %s
"""  # noqa: S608
#: The sentinel's name comes before all others, so it is never returned.
GROUPS_AFTER: Final = """
SELECT name, expires_at, generation, false, 0, 0 FROM signer.groups WHERE name > %s ORDER BY name LIMIT %s
"""
LOG_MARK: Final = "SELECT mark FROM signer.log WHERE number = %s"
LOG_AFTER: Final = """
WITH line AS (SELECT * FROM signer.log WHERE number > %s ORDER BY number LIMIT %s)
SELECT line.number, line.mark, line.name, coalesce(token.expires_at, one.expires_at),
coalesce(one.generation, 0), coalesce(revoked, false), coalesce(uses, 0), coalesce(rotated_at, 0)
FROM line
LEFT JOIN signer.tokens AS token
    ON line.generation = 0 AND token.expires_at = line.expires_at AND token.jti = line.name
LEFT JOIN signer.groups AS one ON line.generation > 0 AND one.name = line.name
ORDER BY line.number
"""


def prepare(connection: Connection, name: str, *, create: bool) -> None:
    """Make the tables if there are none, and upgrade those of the previous version.

    Raises:
        StoreError: there are none, and `create` is False; or they are of another version, or not whole.
        psycopg.Error.
    """
    if not _exists(connection):
        if not create:
            raise StoreError(
                f"There is no list in the database {name}: restore it. If there never was one, start once"
                " with one process."
            )
        _make(connection, name)
    if _version(connection, "") == _UPGRADED:
        _upgrade(connection, name)


def check_version(version: int, name: str) -> None:
    """Raise StoreError if the tables are of a version that this program does not know."""
    if version != VERSION:
        raise StoreError(
            f"The list {name} is of version {version}, and this program knows version {VERSION}: run the"
            " program that made it, or name another database in DATABASE_URL."
        )


def check_whole(name: str, *, is_whole: bool) -> None:
    """Raise StoreError if the tables lost their sentinels."""
    if not is_whole:
        raise StoreError(
            f"The list {name} lost rows, as by TRUNCATE: tokens that were revoked would be valid. Restore it"
            " from a backup."
        )


def is_cockroach(connection: Connection) -> bool:
    """Whether the server is CockroachDB, which has neither advisory locks nor NOTIFY."""
    row = connection.execute("SELECT version()").fetchone()
    return row is not None and "CockroachDB" in row[0]


def _exists(connection: Connection) -> bool:
    # Not to_regclass(), which does not see tables that others made while this transaction waited for the
    # lock.
    found = "SELECT 1 FROM pg_tables WHERE schemaname = 'signer' AND tablename = 'state'"
    return connection.execute(found).fetchone() is not None


def _make(connection: Connection, name: str) -> None:
    with connection.transaction():
        if not is_cockroach(connection):
            connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
        if _exists(connection):  # another process was first
            return
        # Without IF NOT EXISTS, which demands the right to make a schema even if it exists.
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'signer'").fetchone() is None:
            connection.execute("CREATE SCHEMA signer")
        connection.execute(_TABLES)
        connection.execute(_FIRST_STATE, {"version": VERSION, "mark": secrets.randbits(63)})
        connection.execute(_SENTINELS)
    logger.warning("Made a new, empty list in the database %s", name)


def _upgrade(connection: Connection, name: str) -> None:
    with connection.transaction():
        if _version(connection, " FOR UPDATE") != _UPGRADED:  # another process was first
            return
        (is_whole,) = connection.execute(_WAS_WHOLE).fetchone() or (False,)
        check_whole(name, is_whole=is_whole)
        connection.execute(_SENTINELS)
        connection.execute("UPDATE signer.state SET version = %s", (VERSION,))
    logger.warning("Upgraded the list in the database %s to version %s", name, VERSION)


def _version(connection: Connection, lock: str) -> int | None:
    found = connection.execute(f"SELECT version FROM signer.state{lock}").fetchone()  # noqa: S608
    return found[0] if found else None
