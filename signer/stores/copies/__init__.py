"""Copies of a list in memory, and the service's list as others copy it."""
