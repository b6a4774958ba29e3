"""The service over HTTP."""

from .app import create_app
from .server.run import load, serve

__all__ = ["create_app", "load", "serve"]
