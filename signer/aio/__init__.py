"""Calls on a Signer out of an event loop, which must not wait."""
