"""The table of all routes. Starlette's routing and the OpenAPI document are both made of it."""

from collections.abc import Callable
from typing import Any, Final

from ...stores.copies.feed import FeedPart
from ...tokens.values import CodeRequest, IssueRequest, Request
from ..messages.answers import (
    AccessToken,
    Admitted,
    Done,
    Ended,
    Health,
    Inactive,
    Introspection,
    Metadata,
    NewCode,
    NewToken,
    NewTokens,
    OAuthProblem,
    Purged,
    Rotated,
    Undecided,
    Used,
    Verdict,
    Verdicts,
)
from ..messages.bodies import (
    BatchRequest,
    ConsumeRequest,
    Form,
    RevokeRequest,
    RotateRequest,
    SameTokenRequest,
    TokenForm,
    TokenRequestForm,
    ValidateRequest,
    VerifyCodeRequest,
)
from .entry import METHODS, RouteEntry
from .gateways import ForwardAuth
from .oauth import OAuth
from .probes import Probes
from .tokens import API, TokenHandler

_EXAMPLE: Final = "sgt_kHd3aP.eyJqdGkiOiJ4In0.aaaaaa.0000000000000000000000000000000000000000000"
_BODY: Final = (400, 408, 413, 415, 422)
_CALLER: Final = (401, 403)
#: 429 is the answer to a caller that exceeds RATE_LIMIT.
_CLIENT: Final = (*_CALLER, 429)
_CLAIMS: Final = {
    "jti": "3fNqkGlafwkpeLd-NPyRQA",
    "exp": 1924995600,
    "purpose": "access",
    "sub": "42",
    "iat": 1924992000,
    "kid": "kHd3aP",
}
_NEW: Final = {"status_code": 200, "token": _EXAMPLE, "jti": _CLAIMS["jti"], "exp": _CLAIMS["exp"]}


def route_entries(api: API, oauth: OAuth, auth: ForwardAuth, probes: Probes) -> list[RouteEntry]:
    """All routes, in the order of the document."""
    return [
        *_issuing(api),
        *_checking(api),
        *_ending(api),
        *_oauth(oauth),
        *_auth(auth),
        *_feed(probes),
        *_probes(probes),
    ]


def _call(
    api: API, path: str, handler: TokenHandler, body: type[Request], scope: str, *refuses: int, **more: Any
) -> RouteEntry:
    taken = None if body is Request else body  # Request itself has no members
    return RouteEntry(
        path=path,
        tag="tokens",
        endpoint=api.endpoint(handler, body, scope),
        body=taken,
        scope=scope,
        errors=(*_BODY, *_CLIENT, *refuses, 503),
        **more,
    )


def _issuing(api: API) -> list[RouteEntry]:
    return [
        _call(
            api,
            "/app/token",
            api.issue,
            IssueRequest,
            "token:issue",
            summary="Issue a token",
            needs_body=False,
            answer=NewToken,
            example={"sub": "42", "purpose": "access", "ttl": 900, "scope": "read"},
            answer_example=_NEW,
        ),
        _call(
            api,
            "/app/tokens",
            api.issue_many,
            BatchRequest,
            "token:issue",
            summary="Issue many tokens",
            detail="Up to 100. Each has its own result, in the order of the request.",
            answer=NewTokens,
            example={"tokens": [{"sub": "42"}, {"sub": "43", "ttl": 900}]},
            answer_example={"status_code": 200, "tokens": [_NEW, _NEW]},
        ),
        _call(
            api,
            "/app/code",
            api.issue_code,
            CodeRequest,
            "token:issue",
            summary="Issue a code",
            detail="Six digits to send to the subject, and the challenge that must come back with them.",
            answer=NewCode,
            example={"sub": "42", "purpose": "login"},
            answer_example=_NEW | {"code": "012345"},
        ),
        _call(
            api,
            "/app/rotate",
            api.rotate,
            RotateRequest,
            "token:issue",
            409,
            summary="Trade a token for its successor",
            detail="Repeated within the grace window, the call gives the same successor. After it, a"
            " repetition counts as theft, and the whole session ends.",
            answer=Rotated,
            example={"token": _EXAMPLE, "session_ttl": 43200},
            answer_example=_NEW | {"sid": _CLAIMS["jti"]},
        ),
    ]


def _checking(api: API) -> list[RouteEntry]:
    return [
        _valid(api),
        _call(
            api,
            "/app/valid",
            api.validate,
            ValidateRequest,
            "token:introspect",
            summary="Validate a token, or many",
            detail="The claims, or the code of the reason, for one token or for up to 1,000.",
            answer=Verdict | Verdicts,
            unavailable=Undecided,
            example={"token": _EXAMPLE, "purpose": "access", "scope": "read"},
            answer_example={"status_code": 200, "status": True, "claims": _CLAIMS},
        ),
        _call(
            api,
            "/app/consume",
            api.consume,
            ConsumeRequest,
            "token:introspect",
            409,
            summary="Use a token once",
            detail="Validates the token for its purpose and counts one use. Of several callers that try at"
            " once, only as many succeed as uses are left.",
            answer=Used,
            example={"token": _EXAMPLE, "purpose": "verify-email"},
            answer_example={"status_code": 200, "status": True, "uses_left": 0, "claims": _CLAIMS},
        ),
        _call(
            api,
            "/app/code/verify",
            api.verify_code,
            VerifyCodeRequest,
            "token:introspect",
            409,
            summary="Verify a code",
            detail="A challenge takes five guesses, and a subject twenty in any sixty minutes. A right code"
            " uses the challenge up.",
            answer=Admitted,
            example={"token": _EXAMPLE, "code": "012345", "purpose": "login"},
            answer_example={"status_code": 200, "status": True, "claims": _CLAIMS},
        ),
    ]


def _valid(api: API) -> RouteEntry:
    return RouteEntry(
        path="/app/valid/{token}",
        tag="tokens",
        methods=("GET", "POST"),
        endpoint=api.is_valid,
        summary="Check whether a token is valid",
        detail="For any purpose and audience, unless the token is bound to a state. Asking has no effect. A"
        " body can repeat the token, as in the original service.",
        body=SameTokenRequest,
        needs_body=False,
        answer=Done,
        errors=(*_BODY, 503),
        unavailable=Undecided,
    )


def _ending(api: API) -> list[RouteEntry]:
    return [
        _call(
            api,
            "/app/revoke",
            api.revoke,
            RevokeRequest,
            "token:revoke",
            409,
            summary="Revoke tokens",
            detail="One token, or all of a subject, a session or a client.",
            answer=Done,
            example={"sub": "42"},
            answer_example={"status_code": 200, "status": True},
        ),
        _call(
            api,
            "/app/clear/all/tokens",
            api.purge,
            Request,
            "token:purge",
            methods=("DELETE",),
            summary="Purge the revocation list",
            detail="Deletes the rows of tokens that have expired, and no others.",
            needs_body=False,
            answer=Purged,
            answer_example={"status_code": 200, "status": True, "purged": 17},
        ),
    ]


def _form(
    oauth: OAuth, path: str, handler: Callable[..., Any], body: type[Form], scope: str, **more: Any
) -> RouteEntry:
    return RouteEntry(
        path=path,
        tag="oauth",
        endpoint=oauth.endpoint(handler, body, scope),
        body=body,
        scope=scope,
        errors=(400, *_CLIENT, 408, 413, 503),
        problem=OAuthProblem,
        unavailable=OAuthProblem,
        **more,
    )


def _oauth(oauth: OAuth) -> list[RouteEntry]:
    return [
        _form(
            oauth,
            "/oauth/token",
            oauth.token,
            TokenRequestForm,
            "",
            summary="Get an access token",
            detail="For the client itself: grant type client_credentials (RFC 6749, section 4.4).",
            answer=AccessToken,
            example={"grant_type": "client_credentials", "scope": "read"},
            answer_example={
                "access_token": _EXAMPLE,
                "token_type": "Bearer",
                "expires_in": 3600,
                "scope": "read",
            },
        ),
        _form(
            oauth,
            "/oauth/introspect",
            oauth.introspect,
            TokenForm,
            "token:introspect",
            summary="Introspect a token",
            detail="Whether the token is valid, and what it says (RFC 7662).",
            answer=Introspection | Inactive,
            example={"token": _EXAMPLE},
            answer_example={"active": False},
        ),
        _form(
            oauth,
            "/oauth/revoke",
            oauth.revoke,
            TokenForm,
            "",
            summary="Revoke a token",
            detail="A client can revoke its own tokens, and with the scope `token:revoke` any (RFC 7009).",
            answer=Ended,
            example={"token": _EXAMPLE},
            answer_example={},
        ),
        *_metadata(oauth),
    ]


def _metadata(oauth: OAuth) -> list[RouteEntry]:
    return [
        RouteEntry(
            path=path,
            tag="oauth",
            methods=("GET",),
            endpoint=oauth.metadata,
            summary="Find the OAuth endpoints",
            detail="Metadata of an authorization server (RFC 8414).",
            answer=Metadata,
            errors=(400,),
        )
        for path in oauth.metadata_paths
    ]


def _auth(auth: ForwardAuth) -> list[RouteEntry]:
    detail = (
        "A request of any method is answered in the same way, although only GET is shown here. The status is"
        " 200, 401 or 403, and never another one."
    )
    return [
        RouteEntry(
            path=path,
            tag="gateways",
            methods=METHODS,
            endpoint=auth,
            summary="Check a request for a gateway",
            detail=detail,
            answer=Done,
            errors=_CALLER,
            takes_token=True,
        )
        for path in ("/auth", "/auth/{path}")
    ]


def _feed(probes: Probes) -> list[RouteEntry]:
    return [
        RouteEntry(
            path="/app/revocations",
            tag="copies",
            methods=("GET",),
            endpoint=probes.revocations,
            summary="Read the revocation list",
            detail="For readers that keep a copy: first all rows, part by part, then the changes. Each part"
            " has the cursor of the next one in `next`.",
            query={
                "since": "`next` of the previous answer; without it, the first part is sent.",
                "seen": "`newest` of the previous answer; `follows` says whether the list continues from it.",
            },
            answer=FeedPart,
            scope="revocations:read",
            errors=(*_CLIENT, 503),
        )
    ]


def _probes(probes: Probes) -> list[RouteEntry]:
    return [
        RouteEntry(
            path="/healthz",
            tag="probes",
            methods=("GET",),
            endpoint=probes.healthz,
            summary="Check that the process answers",
            answer=Health,
        ),
        RouteEntry(
            path="/readyz",
            tag="probes",
            methods=("GET",),
            endpoint=probes.readyz,
            answer=Health,
            errors=(503,),
            summary="Check that the clock and the revocation list work",
        ),
        RouteEntry(
            path="/metrics",
            tag="probes",
            methods=("GET",),
            endpoint=probes.metrics,
            summary="Read the metrics",
            detail="In the text format of Prometheus, or of OpenMetrics.",
            answer=str,
            scope="metrics:read",
            errors=(*_CLIENT, 503),
        ),
    ]
