"""The list on Redis or Valkey, shared by every process of every machine."""
