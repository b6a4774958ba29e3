"""One row of the table of routes."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from starlette.routing import Route

from ...tokens.values import Request
from ..messages.answers import OAuthProblem, Problem
from ..messages.bodies import Form

#: All methods that OpenAPI knows: a route with all of them is a route of any method.
METHODS: Final = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")


class RouteEntry(Struct, frozen=True, kw_only=True):
    """One route: what it takes and answers, and who may call it.

    Attributes:
        path: its template; a parameter stands in braces.
        tag: the group that the document shows it in.
        endpoint: the handler, or an ASGI application with a method `answer` for a route of any method.
        summary, detail: what it does; in a few words, and the rest.
        answer: the type of the body of a 200; a union of several; or str for text.
        methods: the HTTP methods that it answers; METHODS if it answers any.
        body: the type of the request's body; None if there is none.
        needs_body: whether the body is required.
        scope: what the caller's credential must hold; "" for nothing.
        errors: the statuses of its refusals.
        problem: the type of a refusal's body.
        unavailable: the type of that body for status 503.
        takes_token: whether the caller shows the token that is checked, and no credential.
        query: the parameters of its query, and what each means.
        example, answer_example: of the bodies.
    """

    path: str
    tag: str
    endpoint: Any
    summary: str
    detail: str = ""
    answer: Any
    methods: tuple[str, ...] = ("POST",)
    body: type[Request] | type[Form] | None = None
    needs_body: bool = True
    scope: str = ""
    errors: tuple[int, ...] = ()
    problem: type[Struct] = Problem
    unavailable: type[Struct] = Problem
    takes_token: bool = False
    query: Mapping[str, str] = {}
    example: Any = None
    answer_example: Any = None

    @property
    def takes_any_method(self) -> bool:
        """Whether the method makes no difference."""
        return self.methods == METHODS

    @property
    def shown_methods(self) -> tuple[str, ...]:
        """The methods that the document describes: one is enough where all are answered alike."""
        return ("GET",) if self.takes_any_method else self.methods

    @property
    def is_guarded(self) -> bool:
        """Whether it reads a client's credential."""
        return bool(self.scope) or self.problem is OAuthProblem

    @property
    def route(self) -> Route:
        """Starlette's route for this."""
        methods = None if self.takes_any_method else list(self.methods)
        return Route(self.path.replace("}", ":text}"), self.endpoint, methods=methods)
