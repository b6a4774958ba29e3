"""JSON answers."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

_encoder = msgspec.json.Encoder()
#: Every answer speaks of tokens, and none is ever a page.
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Answer(Response):
    """A JSON body that no cache keeps."""

    media_type = "application/json"

    def __init__(
        self,
        body: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(_encoder.encode(body), status_code, {**_HEADERS, **(headers or {})}, media_type)
