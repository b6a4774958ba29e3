"""The former place of CappedProtocol: `uvicorn --http signer.web.protocol:CappedProtocol` goes on working."""

from .connections.protocol import CappedProtocol

__all__ = ["CappedProtocol"]
