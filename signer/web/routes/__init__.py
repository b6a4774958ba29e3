"""The table of routes, and their handlers."""
