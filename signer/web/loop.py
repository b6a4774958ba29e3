"""The former place of Loop: `uvicorn --loop signer.web.loop:Loop` goes on working."""

from .connections.loop import Loop

__all__ = ["Loop"]
