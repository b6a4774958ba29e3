"""The list of exceptions, on the engines it may live on."""

from .contract import Entry, Store
from .opening import open_store

__all__ = ["Entry", "Store", "open_store"]
