"""Calls on a Signer from an event loop, which must not wait."""
