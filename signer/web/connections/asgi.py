"""The ASGI scope that an application gets of a parsed request."""

import asyncio
from typing import Any, NamedTuple

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from .parser import Head


class Ends(NamedTuple):
    """The two ends of a connection, as ASGI names them: address and port, None where there are none."""

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: str


def ends_of(transport: asyncio.Transport) -> Ends:
    """The ends of this transport, and "https" or "http"."""
    scheme = "https" if is_ssl(transport) else "http"
    return Ends(get_local_addr(transport), get_remote_addr(transport), scheme)


def scope_of(head: Head, ends: Ends, config: Config, app_state: dict[str, Any]) -> dict[str, Any]:
    """The scope of a request that begins with this head (ASGI HTTP specification, version 2.3)."""
    root = config.root_path
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": head.version,
        "server": ends.server,
        "client": ends.client,
        "scheme": ends.scheme,
        "root_path": root,
        "headers": head.headers,
        "state": app_state.copy(),
        "method": head.method,
        "path": root + head.path,
        "raw_path": root.encode("ascii") + head.raw_path,
        "query_string": head.query,
    }
