"""The store: the only place that knows MongoDB."""

from tidings_server.store.events import EventStore, Key, Page, Query
from tidings_server.store.keys import KeyStore, StoredKey
from tidings_server.store.store import Store, StoreRefused
from tidings_server.store.system import Deployment

__all__ = ["Deployment", "EventStore", "Key", "KeyStore", "Page", "Query", "Store", "StoreRefused", "StoredKey"]
