"""The former place of CappedProtocol, so that `uvicorn --http signer.web.protocol:CappedProtocol` still
works."""

from .connections.protocol import CappedProtocol

__all__ = ["CappedProtocol"]
