"""The HTTP call that is being answered, as hooks, the log and rate limits see it."""

import re
import secrets
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from itertools import count
from typing import Final

from starlette.types import Scope

from ...events import Origin, origin

#: A caller's request id appears in a header and in the log, so it must have this form. A token or an exported
#: key does not have it, because both contain a ".".
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_NAT64: Final = IPv6Network("64:ff9b::/96")
#: A request without an id gets a number, after some digits that are unique to this process.
_FIRST_HALF: Final = secrets.token_hex(4)
_count: Final = count(secrets.randbits(32))
#: The key under which an answer leaves the code of its error in the scope, for the log.
CODE: Final = "signer.code"


class Call(Origin, kw_only=True):
    """Where the call comes from.

    Attributes:
        headers: headers that its answer will have, also if it is an error.
    """

    headers: tuple[tuple[bytes, bytes], ...] = ()


def began(scope: Scope) -> Call:
    """A new call for this request. It is the current one in this task and in threads that work for it."""
    call = Call(request_id=_request_id(scope), address=_address(scope))
    origin.set(call)
    return call


def current() -> Call:
    """The call that this task works for; an empty one outside of any call."""
    call = origin.get(None)
    return call if isinstance(call, Call) else Call()


def header(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a request's headers with this lower-case name. Starlette's Headers would decode all."""
    return [value for other, value in scope["headers"] if other == name]


def network(address: str | None) -> str:
    """The network that one caller controls: a single IPv4 address; or the first 64 bits of an IPv6 address,
    because a machine can choose the others itself (RFC 4291, section 2.5.1). "" for None."""
    if address is None or ":" not in address:
        return address or ""
    ip = IPv6Address(address)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    # With NAT64 (RFC 6052), all IPv4 addresses share these bits.
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
    # A trusted proxy may still pass on an invented address, and a zone ("%eth0") can be any text.
    try:
        return str(ip_address(address.partition("%")[0]))
    except ValueError:
        return None
