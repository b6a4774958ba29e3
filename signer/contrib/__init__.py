"""Tokens in web frameworks."""
