"""The store: the only place that knows MongoDB."""

from tidings_server.store.events import EventStore, Query
from tidings_server.store.keys import KeyStore, StoredKey
from tidings_server.store.missions import MissionStore
from tidings_server.store.records import Key, Page
from tidings_server.store.runs import RunQuery, RunStore
from tidings_server.store.store import Store, StoreRefused
from tidings_server.store.sweep import Sweeper
from tidings_server.store.system import Deployment

__all__ = [
    "Deployment",
    "EventStore",
    "Key",
    "KeyStore",
    "MissionStore",
    "Page",
    "Query",
    "RunQuery",
    "RunStore",
    "Store",
    "StoreRefused",
    "StoredKey",
    "Sweeper",
]
