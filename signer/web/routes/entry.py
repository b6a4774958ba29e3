"""What is known of one route."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from starlette.routing import Route

from ...tokens.values import Request
from ..messages.answers import OAuthProblem, Problem
from ..messages.bodies import Form

#: All that OpenAPI knows.
METHODS: Final = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")


class RouteEntry(Struct, frozen=True, kw_only=True):
    """One route. `answer` is the body of its 200, or several that it may be, or str for text; `errors` are
    the statuses of its refusals, whose body is `problem`; `scope` is what the credential must hold; `query`
    has its parameters, and what each means."""

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
    def is_guarded(self) -> bool:
        """Whether it looks at a client's credential."""
        return bool(self.scope) or self.problem is OAuthProblem

    @property
    def route(self) -> Route:
        """Starlette's route for this."""
        methods = None if self.methods == METHODS else list(self.methods)
        return Route(self.path.replace("}", ":text}"), self.endpoint, methods=methods)
