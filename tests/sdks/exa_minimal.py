"""The least data with which an event of each of Exa's types can be created."""

from __future__ import annotations

from typing import Any

WEBSET = {"id": "webset-1"}
SEARCH = {"id": "search-1", "websetId": "webset-1", "query": "wind farms", "count": 10}
ITEM = {
    "id": "item-1",
    "source": "search",
    "sourceId": "search-1",
    "websetId": "webset-1",
    "properties": {"type": "company", "url": "https://example.com", "company": {"name": "Example"}},
}
IMPORT = {"id": "import-1", "format": "csv"}
MONITOR = {
    "id": "monitor-1",
    "websetId": "webset-1",
    "cadence": {"cron": "0 9 * * 1"},
    "behavior": {"type": "search", "config": {"count": 10}},
}
MONITOR_RUN = {"id": "run-1", "monitorId": "monitor-1", "type": "search"}
EXPORT = {"id": "export-1"}

MINIMAL: dict[str, dict[str, Any]] = {
    "webset.created": WEBSET,
    "webset.deleted": WEBSET,
    "webset.idle": WEBSET,
    "webset.paused": WEBSET,
    "webset.search.created": SEARCH,
    "webset.search.updated": SEARCH,
    "webset.search.canceled": SEARCH,
    "webset.search.completed": SEARCH,
    "webset.item.created": ITEM,
    "webset.item.enriched": ITEM,
    "import.created": IMPORT,
    "import.completed": IMPORT,
    "monitor.created": MONITOR,
    "monitor.updated": MONITOR,
    "monitor.deleted": MONITOR,
    "monitor.run.created": MONITOR_RUN,
    "monitor.run.completed": MONITOR_RUN,
    "webset.export.created": EXPORT,
    "webset.export.completed": EXPORT,
}
