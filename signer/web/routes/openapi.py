"""The document at /openapi.json. It is made of the table of routes, and of the types that their handlers
use: a type's docstring describes its members."""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ... import __version__
from ...settings import Settings
from ..messages.answers import Answer, NewToken, Problem
from ..messages.bodies import Form, OneOf
from .descriptions import about, about_members, types_in
from .entry import RouteEntry

_REF: Final = "#/components/schemas/{name}"
_SECURITY: Final = {
    "credential": {
        "type": "http",
        "scheme": "bearer",
        "description": "A client credential, which `python -m signer client NAME --scope …` prints.",
    },
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "The client id as user name, and its credential as password.",
    },
    "access": {
        "type": "oauth2",
        "description": "The token that /auth checks: an access token, or any other that can be reused.",
        "flows": {"clientCredentials": {"tokenUrl": "oauth/token", "scopes": {}}},
    },
}
#: What the query of /auth can demand of the token.
_DEMANDS: Final = {
    "scope": "Words, separated by spaces, that the token's scope must contain. Every value given applies.",
    "purpose": "What the token must have been issued for. Every value given applies.",
    "aud": "The audience that the token must be meant for. Every value given applies.",
}
_IN_PATH: Final = {
    "token": "The token's text.",
    "path": "Any path. It is ignored: some gateways append that of the request which they ask about.",
}
#: Headers of an error, by its status.
_ERROR_HEADERS: Final = {
    401: {"WWW-Authenticate": "How the caller can authenticate (RFC 6750, RFC 7617)."},
    503: {"Retry-After": "Seconds until the next attempt."},
}
_REQUEST_ID: Final = "The request's id, which its line in the log has, too."
_JSON_REF: Final = {"$ref": _REF.format(name="JSON")}
#: What tokens.values.check_data accepts, apart from the depth.
_JSON: Final = {
    "description": "Any JSON, with numbers from -2^63 to 2^63.",
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "number", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": "array", "items": _JSON_REF},
        {"type": "object", "additionalProperties": _JSON_REF},
    ],
}
#: The media types of the one answer that is text.
_METRICS: Final = ("text/plain", "application/openmetrics-text")
_IDENTITY: Final = {
    "X-Token-Subject": "The token's `sub`; percent-encoded, except for visible ASCII. Empty if it has none.",
    "X-Token-Scope": "The token's `scope`: words separated by spaces. Empty if it has none.",
    "X-Token-Id": "The token's `jti`.",
    "X-Token-Client": "The token's `client_id`. Empty if it has none.",
}
#: What a client can do with a new token.
_LINKS: Final = {
    "check": {"operationId": "get_app_valid_token", "parameters": {"token": "$response.body#/token"}},
    **{
        name: {"operationId": operation, "requestBody": {"token": "$response.body#/token"}}
        for name, operation in {
            "validate": "post_app_valid",
            "consume": "post_app_consume",
            "rotate": "post_app_rotate",
            "revoke": "post_app_revoke",
        }.items()
    },
}


class Document:
    """The API's description.

    Args:
        entries: the routes that it describes.
        settings: have the title, the description, the longest life of a token, and the cookie's name.
        anonymous: scopes that callers without a credential have; None for all.
    """

    def __init__(
        self, entries: Iterable[RouteEntry], settings: Settings, anonymous: frozenset[str] | None
    ) -> None:
        self._entries = list(entries)
        self._settings = settings
        self._anonymous = anonymous
        # The same for all callers, so it is made once.
        self._answer = Answer(self._document())

    async def endpoint(self, request: HTTPRequest) -> Response:
        """GET /openapi.json"""
        return self._answer

    def _document(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for entry in self._entries:
            for method in entry.shown_methods:
                paths.setdefault(entry.path, {})[method.lower()] = self._described(entry, method)
        info = {"title": self._settings.app_title, "description": self._settings.app_description}
        return {
            "openapi": "3.1.0",
            "info": info | {"version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
            # Relative to this document, because a proxy may add a prefix to every path.
            "servers": [{"url": "."}],
            "paths": paths,
            "components": {
                "schemas": self._schemas(),
                "responses": self._refusals(),
                "securitySchemes": self._schemes(),
            },
        }

    def _described(self, entry: RouteEntry, method: str) -> dict[str, Any]:
        described: dict[str, Any] = {
            "operationId": "_".join([method.lower(), *re.findall("[a-z0-9]+", entry.path.lower())]),
            "summary": entry.summary,
            "description": " ".join(_details(entry)).strip(),
            "tags": [entry.tag],
            "parameters": [*_parameters(entry)],
            "responses": dict(_responses(entry)),
        }
        if entry.body and method != "GET":
            described["requestBody"] = _body(entry, entry.body)
        if security := self._security(entry):
            described["security"] = security
        return described

    def _security(self, entry: RouteEntry) -> list[dict[str, list[str]]]:
        schemes: list[str] = []
        if entry.takes_token:
            schemes = ["access", *(["cookie"] if self._settings.auth_cookie else [])]
        elif entry.is_guarded:
            schemes = ["credential", "client"]
        security: list[dict[str, list[str]]] = [{scheme: []} for scheme in schemes]
        is_open = self._anonymous is None or entry.scope in self._anonymous
        return [*security, {}] if entry.scope and is_open else security

    def _schemes(self) -> dict[str, Any]:
        if not self._settings.auth_cookie:
            return _SECURITY
        cookie = {"type": "apiKey", "in": "cookie", "name": self._settings.auth_cookie}
        return _SECURITY | {"cookie": cookie | {"description": "The token that /auth checks, in a cookie."}}

    def _refusals(self) -> dict[str, Any]:
        errors = sorted({error for entry in self._entries for error in _errors(entry)}, key=str)
        return {
            f"{kind.__name__}{status}": _response(HTTPStatus(status).phrase, kind)
            | {"headers": _headers(_ERROR_HEADERS.get(status, {}))}
            for status, kind in errors
        }

    def _schemas(self) -> dict[str, Any]:
        types = {kind for entry in self._entries for kind in _types(entry)}
        _, schemas = msgspec.json.schema_components(sorted(types, key=str), ref_template=_REF)
        for kind in types:
            schemas[kind.__name__] |= {"description": about(kind)} | _choices(kind) | _extras(kind)
            for name, description in about_members(kind).items():
                schemas[kind.__name__].setdefault("properties", {})[name]["description"] = description
        longest = self._settings.token_max_ttl_minutes * 60
        for name in ("TokenForm", "TokenRequestForm"):
            del schemas[name]["properties"]["client_secret"]  # described as a security scheme
        for name in ("IssueRequest", "CodeRequest"):
            schemas[name]["properties"]["ttl"]["anyOf"][0]["maximum"] = longest
            schemas[name]["properties"]["data"] |= _JSON_REF
        schemas["JSON"] = _JSON
        portable: dict[str, Any] = _portable(schemas)
        return portable


def _details(entry: RouteEntry) -> Iterator[str]:
    yield entry.detail
    if entry.scope:
        yield f"Needs the scope `{entry.scope}`."


def _responses(entry: RouteEntry) -> Iterator[tuple[str, Any]]:
    done = _response("Done.", entry.answer, entry.answer_example)
    done["headers"] = _headers(_IDENTITY if entry.takes_token else {})
    yield "200", done | ({"links": _LINKS} if entry.answer is NewToken else {})
    for status, kind in _errors(entry):
        yield str(status), {"$ref": f"#/components/responses/{kind.__name__}{status}"}


def _errors(entry: RouteEntry) -> Iterator[tuple[int, type[Struct]]]:
    for status in entry.errors:
        yield status, entry.unavailable if status == HTTPStatus.SERVICE_UNAVAILABLE else entry.problem


def _types(entry: RouteEntry) -> Iterator[type[Struct]]:
    for kind in (entry.answer, entry.problem, entry.unavailable, entry.body):
        yield from types_in(kind)


def _alternatives(answer: Any) -> tuple[type[Struct], ...]:
    return get_args(answer) or (answer,)


def _choices(kind: type[Struct]) -> dict[str, Any]:
    if not issubclass(kind, OneOf):
        return {}
    return {"oneOf": [{"required": [name]} for name in kind.one_of]}


def _extras(kind: type[Struct]) -> dict[str, Any]:
    # RFC 6749, section 3.2: unknown parameters are ignored, repeated ones refused.
    return {"additionalProperties": {"type": "string"}} if issubclass(kind, Form) else {}


def _portable(schema: Any) -> Any:
    """The same schema with patterns that regular expressions in every language can read: without the halves
    of surrogate pairs, which JSON cannot contain anyway, and without the guard against Python's "$"."""
    match schema:
        case dict():
            portable = {key: _portable(value) for key, value in schema.items()}
            if portable.get("pattern") == "^[^]*$":
                del portable["pattern"]  # it refused only what JSON cannot contain
            return portable
        case list():
            return [_portable(item) for item in schema]
        case str() if schema.endswith("$(?!\\n)"):
            return schema.removesuffix("(?!\\n)").replace("\\ud800-\\udfff", "")
    return schema


def _schema(kind: Any) -> dict[str, Any]:
    references = [{"$ref": _REF.format(name=one.__name__)} for one in _alternatives(kind)]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _content(kind: Any, example: Any) -> dict[str, Any]:
    return {"schema": _schema(kind)} | ({} if example is None else {"example": example})


def _response(description: str, kind: Any, example: Any = None) -> dict[str, Any]:
    content = {"schema": {"type": "string"}} if kind is str else _content(kind, example)
    media_types = {Problem: ("application/problem+json",), str: _METRICS}.get(kind, ("application/json",))
    return {"description": description, "content": dict.fromkeys(media_types, content)}


def _headers(described: dict[str, str]) -> dict[str, Any]:
    every = described | {"X-Request-ID": _REQUEST_ID}
    text = {"required": True, "schema": {"type": "string"}}
    return {name: {"description": description, **text} for name, description in every.items()}


def _body(entry: RouteEntry, kind: type[Struct]) -> dict[str, Any]:
    content = _content(kind, entry.example)
    media_type = "application/x-www-form-urlencoded" if issubclass(kind, Form) else "application/json"
    return {"required": entry.needs_body, "content": {media_type: content}}


def _parameters(entry: RouteEntry) -> Iterator[dict[str, Any]]:
    if "{" in entry.path:
        name = entry.path.partition("{")[2].strip("}")
        text = {"required": True, "schema": {"type": "string"}}
        yield {"name": name, "in": "path", "description": _IN_PATH[name], **text}
    for name, description in entry.query.items():
        yield {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
    for name, description in _DEMANDS.items() if entry.takes_token else ():
        schema = {"type": "array", "items": {"type": "string"}}
        yield {"name": name, "in": "query", "description": description, "schema": schema}
