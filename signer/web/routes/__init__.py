"""The routes: one table, and the handlers that it names."""
