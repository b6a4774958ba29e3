"""The types and limits of every value that a caller chooses.

One description serves the arguments of the library, the HTTP bodies and the API documentation.
"""

import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from ..errors import RequestInvalid
from ..policy import LONGEST_TTL, MAX_BODY, MAX_DATA_DEPTH
from .claims import DEFAULT_PURPOSE, RESERVED_PREFIX, Uses

#: Characters of a subject or an audience.
_SHORT: Final = 255


def _whole(pattern: str) -> str:
    # `$` alone also matches before a final newline; `\Z` is not a regular expression of JSON Schema.
    return rf"^{pattern}$(?!\n)"


#: Halves of surrogate pairs are not characters, and JSON readers do not return them.
_HALVES = r"\ud800-\udfff"
_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029" + _HALVES
_SCOPE_WORD = r"[\x21\x23-\x5b\x5d-\x7e]+"

Jti = Annotated[str, Meta(pattern=_whole("[A-Za-z0-9_-]{22}"))]
# "kid" would make the key of the purpose begin with the public key id, because keys.py derives both alike.
_PURPOSE = _whole("(?!kid$)[A-Za-z0-9][A-Za-z0-9._:-]*")
Purpose = Annotated[str, Meta(pattern=_PURPOSE, max_length=64)]
#: Leaves room for claims.CODE_PREFIX.
CodePurpose = Annotated[str, Meta(pattern=_PURPOSE, max_length=48)]
Subject = Annotated[str, Meta(pattern=_whole(f"[^{_UNPRINTABLE}]+"), max_length=_SHORT)]
#: Space-separated words of RFC 6749, section 3.3.
Scope = Annotated[str, Meta(pattern=_whole(f"{_SCOPE_WORD}( {_SCOPE_WORD})*"), max_length=1024)]
Audience = Annotated[str, Meta(pattern=_whole(r"[\x21-\x7e]+"), max_length=_SHORT)]
#: Clients disagree on percent-encoding, so ids stay in the characters no encoding touches.
Name = Annotated[str, Meta(pattern=_whole("[A-Za-z0-9._~-]+"), max_length=64)]
#: RFC 4226's shortest.
Code = Annotated[str, Meta(pattern=_whole("[0-9]{6}"))]
Ttl = Annotated[int, Meta(ge=1, le=LONGEST_TTL)]
Seconds = Annotated[int, Meta(ge=0, le=LONGEST_TTL)]
Binding = Annotated[str, Meta(pattern=_whole(f"[^{_HALVES}]*"), min_length=1, max_length=4096)]


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller asks for. Its repr shows only the class, because members may hold tokens or password
    hashes."""

    #: Bytes of the HTTP body that says it. A token holds 4096 characters at most, and JSON may write a
    #: character in six.
    max_body: ClassVar[int] = MAX_BODY

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class IssueRequest(Request, frozen=True, kw_only=True):
    """What a new token should say. All members can be left out. This is also the body of POST /app/token.

    Attributes:
        purpose: what the token is for. It is not valid for any other purpose.
        sub: the subject, such as a user's id.
        ttl: the token's life in seconds; the service's default if left out.
        scope: what the token permits: words separated by spaces.
        aud: the audience that the token is meant for, such as a service's name.
        sid: a session that the token belongs to; all tokens of a session can be revoked at once.
        data: any JSON, at most 32 levels deep. The token is signed, not encrypted: its holder can read this.
        max_uses: how many times the token can be consumed; if left out, once.
        bind: a state that the token is bound to, such as the user's password hash: the token is refused once
            that changes. The state itself is neither stored nor part of the token.
    """

    purpose: Purpose = DEFAULT_PURPOSE
    sub: Subject | None = None
    ttl: Ttl | None = None
    scope: Scope | None = None
    aud: Audience | None = None
    sid: Name | None = None
    data: Any = None
    max_uses: Uses | None = None
    bind: Binding | None = None


class CodeRequest(Request, frozen=True, kw_only=True):
    """What a new code is for. This is also the body of POST /app/code.

    Attributes:
        sub: the subject that the code is sent to, such as a user's id. Wrong guesses are counted for it.
        purpose: what the code is for. It is not valid for any other purpose.
        ttl: the code's life in seconds; ten minutes if left out.
        data: any JSON, at most 32 levels deep, which the verified code gives back.
    """

    sub: Subject
    purpose: CodePurpose = DEFAULT_PURPOSE
    ttl: Ttl | None = None
    data: Any = None


def issue_request(  # noqa: PLR0917 - by place: names would take a part of an issue that counts
    purpose: str,
    sub: str | None,
    ttl: int | None,
    scope: str | None,
    data: Any,
    aud: str | None,
    sid: str | None,
    max_uses: int | None,
    bind: str | None,
) -> IssueRequest:
    """The request that the arguments of Signer.issue make. Where a glance shows that they are right, they are
    not matched against their patterns, which takes a third of an issue.

    Raises:
        RequestInvalid: naming the argument that is not allowed.
    """
    if (
        aud is None
        and sid is None
        and max_uses is None
        and bind is None
        and type(purpose) is str
        and (scope is None or type(scope) is str)
        and (sub is None or (type(sub) is str and 0 < len(sub) <= _SHORT and sub.isprintable()))
        and (ttl is None or (type(ttl) is int and 0 < ttl <= LONGEST_TTL))
    ):
        return replace(_repeated(purpose, scope), sub=sub, ttl=ttl, data=data)
    asked = {"purpose": purpose, "sub": sub, "ttl": ttl, "scope": scope, "aud": aud, "sid": sid}
    request: IssueRequest = converted(
        asked | {"data": data, "max_uses": max_uses, "bind": bind}, IssueRequest
    )
    return request


@lru_cache(1024)
def _repeated(purpose: str, scope: str | None) -> IssueRequest:
    # A program has a handful of these.
    request: IssueRequest = converted({"purpose": purpose, "scope": scope}, IssueRequest)
    return request


def check_public(purpose: str) -> None:
    """Callers can neither issue, consume nor export the purposes of the service itself: otherwise a client
    that may issue tokens could issue itself a credential for everything.

    Raises:
        RequestInvalid: naming `purpose`.
    """
    if purpose.startswith(RESERVED_PREFIX):
        raise RequestInvalid(f"purpose: the prefix {RESERVED_PREFIX} is the service's own", "purpose")


def check_data(value: Any, depth: int = MAX_DATA_DEPTH) -> None:
    """Accept only what JSON carries unchanged to every reader and back.

    NaN would silently become null, an integer key a string, an integer of more than 64 bits a float.

    Raises:
        RequestInvalid: naming `data`.
    """
    if depth < 0:
        raise RequestInvalid(f"data: nested deeper than {MAX_DATA_DEPTH} levels", "data")
    match value:
        case None | bool():
            return
        case str() if not re.search(f"[{_HALVES}]", value):
            return
        # Written so that NaN fails.
        case int() | float() if -(2**63) <= value < 2**63:
            return
        case list():
            for item in value:
                check_data(item, depth - 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise RequestInvalid("data: every key must be a string", "data")
                check_data(key, depth)
                check_data(item, depth - 1)
        case _:
            raise RequestInvalid(
                "data: must be JSON: objects, lists, strings of whole characters, true, false, null,"
                " numbers from -2^63 to 2^63",
                "data",
            )


def converted(value: Any, wanted: Any, field: str = "") -> Any:
    """`value` as the type `wanted`, strictly: no unknown member, no `true` for a number.

    Raises:
        RequestInvalid: naming the member at fault, or `field` if it is the value itself.
    """
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise explained(error, field) from None


#: What the patterns above accept, in words.
_TAKES: Final = {
    "jti": "22 characters of base64url",
    "purpose": "A-Z a-z 0-9 . _ : -, a letter or digit first, and is not `kid`",
    "sub": "text without control characters or line ends, and not empty",
    "scope": "words of printable ASCII with single spaces between them",
    "aud": "printable ASCII without spaces",
    "sid": "A-Z a-z 0-9 . _ ~ -",
    "client_id": "A-Z a-z 0-9 . _ ~ -",
    "bind": "text that is not empty",
    "code": "6 digits",
}


def explained(error: msgspec.ValidationError, field: str = "") -> RequestInvalid:
    """msgspec's error as ours: "ttl: expected `int`, got `bool`". Contains no value."""
    reason, _, path = str(error).partition(" - at `$")
    field = path.strip("`.") or field
    if named := re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", reason, re.DOTALL):
        # A longer name may be a token in the wrong place.
        field = named[2] if re.fullmatch(r"[A-Za-z_]{1,32}", named[2]) else "…"
        reason = "there is no such member" if named[1] == "contains unknown" else "is missing"
    elif "matching regex" in reason:
        reason = f"takes {_TAKES[field]}"
    reason = reason.replace(" | null", "")
    reason = reason[:1].lower() + reason[1:]
    return RequestInvalid(f"{field}: {reason}" if field else f"The body: {reason}", field)
