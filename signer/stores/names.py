"""What tokens are called in the list: the row that is a token's own, and the groups it is revoked with.

No purpose, client id or session id holds "/", so that no two names meet.
"""

from ..tokens.claims import CLIENT_PURPOSE, Claims


def row(claims: Claims) -> str:
    """The token's row, beside `exp`. The purpose stands in it, so that whoever has the key of one purpose
    cannot use up a token of another by making one with its id."""
    return f"{claims.purpose}/{claims.jti}"


def guesses(claims: Claims) -> str:
    """The row that counts the guesses at a challenge. No purpose is empty, so no token's row begins so."""
    return f"/guesses/{claims.jti}"


def guesses_in_hour(claims: Claims) -> str:
    """The row that counts a subject's guesses in one hour; a client's own, or one could use up another's."""
    return f"/guesses-in-hour/{claims.client_id or ''}/{claims.sub}"


def guess_in_hour(claims: Claims, number: int) -> str:
    """The row that keeps the second of one of them."""
    return f"/guess-in-hour/{number}/{claims.client_id or ''}/{claims.sub}"


def by_jti(jti: str) -> str:
    """The group of one token."""
    return f"jti:{jti}"


def by_subject(sub: str) -> str:
    """The group of a subject's tokens."""
    return f"sub:{sub}"


def by_session(sid: str) -> str:
    """The group of a session's tokens; of a chain of rotated tokens, `sid` is the first one's or its id."""
    return f"sid:{sid}"


def by_client(client_id: str) -> str:
    """The group of a client's credentials and the tokens it issued."""
    return f"client_id:{client_id}"


def by_chain(claims: Claims) -> str:
    """The group of the chain of rotated tokens that this one belongs to, or begins: its session, but for this
    purpose and client alone. Another client, or whoever has another purpose's key, could name its `sid`."""
    return f"chain:{claims.purpose}/{claims.client_id or ''}/{claims.sid or claims.jti}"


def shared_groups(claims: Claims) -> list[str]:
    """The groups of a token that others may have been in before it."""
    groups = []
    # A user who calls himself like a client must not be able to log that client out.
    if claims.sub is not None and claims.purpose != CLIENT_PURPOSE:
        groups.append(by_subject(claims.sub))
    if claims.client_id is not None:
        groups.append(by_client(claims.client_id))
    if claims.sid is not None:
        groups += [by_session(claims.sid), by_chain(claims)]
    return groups


def chain_groups(claims: Claims) -> list[str]:
    """The groups of a token that all of its chain are in."""
    if claims.sid is not None:
        return shared_groups(claims)
    return [by_session(claims.jti), by_chain(claims), *shared_groups(claims)]


def groups(claims: Claims) -> list[str]:
    """All of a token's groups. One without `sid` is revoked by its id as the session it may have begun."""
    own = [] if claims.sid is None else [by_jti(claims.jti)]
    return [*own, *chain_groups(claims)]


def id_of_row(name: str) -> str:
    """The `jti` that a token's row is named by."""
    return name.rpartition("/")[2]


def id_of_group(name: str) -> str:
    """The one id that a group is named by: a `jti`, `sub`, `sid` or `client_id` of the tokens in it."""
    kind, _, value = name.partition(":")
    # Subjects may hold anything.
    return value if kind == "sub" else value.rpartition("/")[2]
