"""The HTTP call under way, as hooks, log and limits see it."""

import re
import secrets
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from itertools import count
from typing import Final

from starlette.types import Scope

from ...events import Origin, origin

#: Well-formed, so that it may stand in a header and a log. Neither a token nor an exported key is: no ".".
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_NAT64: Final = IPv6Network("64:ff9b::/96")
#: Requests without an id are counted, after some digits that are this process's own.
_FIRST_HALF: Final = secrets.token_hex(4)
_count: Final = count(secrets.randbits(32))
#: Where answers leave the code of their error for the log.
CODE: Final = "signer.code"


class Call(Origin, kw_only=True):
    """Where it comes from, and headers that its answer is to have, whatever it is."""

    headers: tuple[tuple[bytes, bytes], ...] = ()


def began(scope: Scope) -> Call:
    """The call that a request begins, for the rest of this task and the threads that work for it."""
    call = Call(request_id=_request_id(scope), address=_address(scope))
    origin.set(call)
    return call


def current() -> Call:
    """The call that this task works for; a blank one outside of any."""
    call = origin.get(None)
    return call if isinstance(call, Call) else Call()


def header(scope: Scope, name: bytes) -> list[bytes]:
    """What a request's headers of this name, in lower case, hold. Starlette's Headers would decode all."""
    return [value for other, value in scope["headers"] if other == name]


def network(address: str | None) -> str:
    """What one caller has for addresses: an address of IPv4, or the 64 bits before those that a machine
    chooses itself in IPv6 (RFC 4291, section 2.5.1)."""
    if address is None or ":" not in address:
        return address or ""
    ip = IPv6Address(address)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    # Behind NAT64 (RFC 6052) these bits are the whole world's.
    return address if ip in _NAT64 else str(IPv6Address(int(ip) >> 64 << 64))


def _request_id(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return str(given[0].decode())
    return f"{_FIRST_HALF}{next(_count) & 0xFFFFFFFF:08x}"


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return _well_formed(client[0]) if client else None


@lru_cache(1024)
def _well_formed(address: str) -> str | None:
    # A proxy that is believed may still pass on what somebody made up; a zone ("%eth0") may be any text.
    try:
        return str(ip_address(address.partition("%")[0]))
    except ValueError:
        return None
