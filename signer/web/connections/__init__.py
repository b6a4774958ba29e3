"""Connections: how requests are read off them, and how answers are written to them."""
