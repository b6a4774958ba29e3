"""New tokens: their claims, and the text that is made of them."""

from functools import lru_cache
from os import urandom

from msgspec.structs import replace

from ..errors import RequestInvalid
from ..tokens.claims import Claims, Issued
from ..tokens.keys import base64url
from ..tokens.values import IssueRequest, Name, check_data, converted
from .core import Core


def grant(core: Core, request: IssueRequest, client_id: str | None) -> Issued:
    """See Signer.grant."""
    with core.hooks.operation("issue") as operation:
        token, claims = made(core, request, client_id)
        operation.about(claims)
        operation.begin()  # the credential was confirmed when the generation was read
        return Issued(token, claims)


def made(core: Core, request: IssueRequest, client_id: str | None) -> tuple[str, Claims]:
    """A new token and its claims; no hook hears of it."""
    if request.data is not None:
        check_data(request.data)
    if request.max_uses is not None:
        core.required_store()
    iat = int(core.admission.now())
    claims = Claims(
        jti=base64url(urandom(16)),
        exp=iat + (core.ttl if request.ttl is None else _life(core, request.ttl)),
        purpose=request.purpose,
        sub=request.sub,
        scope=request.scope,
        aud=request.aud,
        client_id=None if client_id is None else _client(client_id),
        sid=request.sid,
        data=request.data,
        max_uses=request.max_uses,
    )
    return sealed(core, core.admission.in_generation(claims, core.credential), iat, request.bind)


def sealed(core: Core, claims: Claims, iat: int, bind: str | None) -> tuple[str, Claims]:
    """The token that says this, issued at second `iat` and bound to the state `bind`, and its claims.

    Raises:
        RequestInvalid: it would be too long.
    """
    if bind is not None:
        claims = replace(claims, bnd=core.admission.binding(claims, bind))
    return core.codec.encode(claims, iat), claims


def _life(core: Core, ttl: int) -> int:
    if ttl > core.max_ttl:
        raise RequestInvalid(f"ttl: at most {core.max_ttl} seconds (TOKEN_MAX_TTL_MINUTES)", "ttl")
    return ttl


def _client(client_id: str) -> str:
    # A caller of the library may pass anything, also what cannot be hashed.
    known = _known_client if type(client_id) is str else _known_client.__wrapped__
    return known(client_id)


@lru_cache
def _known_client(client_id: str) -> str:
    name: str = converted(client_id, Name, "client_id")
    return name
