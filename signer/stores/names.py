"""The names in a list: of a token's own row, and of the groups that it can be revoked with.

No purpose, client id or session id contains "/", so no two names are equal by accident.
"""

from ..tokens.claims import CLIENT_PURPOSE, Claims


def row(claims: Claims) -> str:
    """The token's row, together with `exp`. It contains the purpose: otherwise, whoever has the key of one
    purpose could use up a token of another purpose by making one with its id."""
    return f"{claims.purpose}/{claims.jti}"


def guesses(claims: Claims) -> str:
    """The row that counts the guesses at a challenge. No purpose is empty, so no token's row begins with
    "/"."""
    return f"/guesses/{claims.jti}"


def guesses_in_hour(claims: Claims) -> str:
    """The row that counts a subject's guesses in one hour. Each client has its own, or one client could use
    up the guesses of another."""
    return f"/guesses-in-hour/{claims.client_id or ''}/{claims.sub}"


def guess_in_hour(claims: Claims, number: int) -> str:
    """The row that records the second of one of these guesses."""
    return f"/guess-in-hour/{number}/{claims.client_id or ''}/{claims.sub}"


def by_jti(jti: str) -> str:
    """The group of one token."""
    return f"jti:{jti}"


def by_subject(sub: str) -> str:
    """The group of a subject's tokens."""
    return f"sub:{sub}"


def by_session(sid: str) -> str:
    """The group of a session's tokens. In a chain of rotated tokens, `sid` is that of the first token, or its
    id."""
    return f"sid:{sid}"


def by_client(client_id: str) -> str:
    """The group of a client's credentials and of the tokens that it issued."""
    return f"client_id:{client_id}"


def by_chain(claims: Claims) -> str:
    """The group of the chain of rotated tokens that this one belongs to, or begins: its session, but only for
    this purpose and client. Otherwise another client, or whoever has the key of another purpose, could name
    its `sid` and end it."""
    return f"chain:{claims.purpose}/{claims.client_id or ''}/{claims.sid or claims.jti}"


def shared_groups(claims: Claims) -> list[str]:
    """The groups of a token that other tokens may have been in before it."""
    groups = []
    # Logging out a user whose name is that of a client must not log out the client.
    if claims.sub is not None and claims.purpose != CLIENT_PURPOSE:
        groups.append(by_subject(claims.sub))
    if claims.client_id is not None:
        groups.append(by_client(claims.client_id))
    if claims.sid is not None:
        groups += [by_session(claims.sid), by_chain(claims)]
    return groups


def chain_groups(claims: Claims) -> list[str]:
    """The groups of a token that all tokens of its chain are in."""
    if claims.sid is not None:
        return shared_groups(claims)
    return [by_session(claims.jti), by_chain(claims), *shared_groups(claims)]


def groups(claims: Claims) -> list[str]:
    """All groups of a token. A token without `sid` is revoked by its id, as the session that it may have
    begun."""
    own = [] if claims.sid is None else [by_jti(claims.jti)]
    return [*own, *chain_groups(claims)]


def id_of_row(name: str) -> str:
    """The `jti` in the name of a token's row."""
    return name.rpartition("/")[2]


def id_of_group(name: str) -> str:
    """The id in the name of a group: a `jti`, `sub`, `sid` or `client_id` of the tokens in it."""
    kind, _, value = name.partition(":")
    # A subject may contain any character, also a slash.
    return value if kind == "sub" else value.rpartition("/")[2]
