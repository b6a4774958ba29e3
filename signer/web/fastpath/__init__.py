"""The short way of a request that waits for nothing; web/__init__.py draws both ways."""
