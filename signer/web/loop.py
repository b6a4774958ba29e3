"""The former place of Loop, so that `uvicorn --loop signer.web.loop:Loop` still works."""

from .connections.loop import Loop

__all__ = ["Loop"]
