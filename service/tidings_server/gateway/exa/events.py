"""The types of Exa's events, and their `data` as Exa's SDK takes it.

One event whose data the SDK does not take makes the whole page of its `list` fail. So what is missing is filled in
when an event is read, and data that cannot be helped is refused when it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from tidings_server.gateway.exa.data import Import, Monitor, MonitorRun, Webset, WebsetSearch
from tidings_server.gateway.exa.items import WebsetItem
from tidings_server.gateway.exa.parts import Part
from tidings_server.gateway.json_text import plain

WebsetType = Literal["webset.created", "webset.deleted", "webset.idle", "webset.paused"]
SearchType = Literal[
    "webset.search.created", "webset.search.updated", "webset.search.canceled", "webset.search.completed"
]
ItemType = Literal["webset.item.created", "webset.item.enriched"]
ImportType = Literal["import.created", "import.completed"]
MonitorType = Literal["monitor.created", "monitor.updated", "monitor.deleted"]
MonitorRunType = Literal["monitor.run.created", "monitor.run.completed"]
ExportType = Literal["webset.export.created", "webset.export.completed"]
EventType = Literal[WebsetType, SearchType, ItemType, ImportType, MonitorType, MonitorRunType, ExportType]

TYPES: Final[tuple[str, ...]] = get_args(EventType)

_DATA: Final[Mapping[str, type[Part]]] = {
    type_: model
    for types, model in (
        (WebsetType, Webset),
        (SearchType, WebsetSearch),
        (ItemType, WebsetItem),
        (ImportType, Import),
        (MonitorType, Monitor),
        (MonitorRunType, MonitorRun),
    )
    for type_ in get_args(types)
}
_STATUS: Final[Mapping[str, str]] = {
    "webset.paused": "paused",
    "webset.search.updated": "running",
    "webset.search.canceled": "canceled",
    "webset.search.completed": "completed",
    "import.completed": "completed",
    "monitor.run.completed": "completed",
}
"""The status that an event's type tells. The models have the one that comes first."""


def completed(type_: str, data: Mapping[str, Any], time: str) -> dict[str, Any]:
    """The data of an event of that time with all that the SDK wants. Raises ValidationError if something is not known.

    Data of types that the SDK has no model for is as it is.
    """
    status = {"status": _STATUS[type_]} if type_ in _STATUS else {}
    model = _DATA.get(type_, Part).model_validate({**status, **data})
    model.fill_in(time)
    content: dict[str, Any] = plain(model.model_dump(by_alias=True))
    return content


class NewEvent(BaseModel):
    """An event to create: its type says what its data is."""

    model_config = ConfigDict(strict=True)

    # Exa's SDKs put the id into the path as it is.
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._~-]{0,127}$")] | None = Field(
        None, description="A new one if not given. With it a request may be repeated."
    )


class NewWebsetEvent(NewEvent):
    type: WebsetType
    data: Webset


class NewSearchEvent(NewEvent):
    type: SearchType
    data: WebsetSearch


class NewItemEvent(NewEvent):
    type: ItemType
    data: WebsetItem


class NewImportEvent(NewEvent):
    type: ImportType
    data: Import


class NewMonitorEvent(NewEvent):
    type: MonitorType
    data: Monitor


class NewMonitorRunEvent(NewEvent):
    type: MonitorRunType
    data: MonitorRun


class NewExportEvent(NewEvent):
    type: ExportType
    data: Part


AnyNewEvent = Annotated[
    NewWebsetEvent
    | NewSearchEvent
    | NewItemEvent
    | NewImportEvent
    | NewMonitorEvent
    | NewMonitorRunEvent
    | NewExportEvent,
    Field(discriminator="type"),
]
