"""Tokens in other people's frameworks."""
