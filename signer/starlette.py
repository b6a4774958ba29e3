"""The former place of signer.contrib.starlette, from which its names can still be imported."""

from .contrib.starlette import TokenBackend, TokenUser

__all__ = ["TokenBackend", "TokenUser"]
