"""Host names and addresses in headers."""

import re
from ipaddress import ip_address
from typing import Final

#: RFC 3986, section 3.2: an IPv6 address in brackets, or a name or IPv4 address; and a port.
AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]*)?")


def host_of(authority: str) -> str:
    """The host of an authority ("host:port"), in lower case; "" if it is malformed."""
    match = AUTHORITY.fullmatch(authority)
    return (match[1] or match[2]).lower() if match else ""


def is_loopback(host: str) -> bool:
    """Whether this names the machine itself."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
