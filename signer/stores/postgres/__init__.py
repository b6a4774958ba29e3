"""The list in PostgreSQL, shared by every process of every machine."""
