"""The list in one SQLite file, shared by every process of a machine."""
