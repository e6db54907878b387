"""The `data` of Exa's events about websets, searches, imports and monitors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, Tag

from tidings_server.gateway.exa.parts import (
    Description,
    Entity,
    Format,
    Metadata,
    Part,
    Percentage,
    Resource,
    Several,
    Time,
    by,
    word_but,
)


class PartOfWebset(Resource):
    webset_id: str = Field("", description="That of the webset it is in if not given.")


class Criterion(Description):
    success_rate: Percentage = 0


class Progress(Part):
    found: float = 0
    analyzed: float = 0
    completion: Percentage = 0
    time_left: float | None = None


class Expected(Part):
    total: int
    confidence: Literal["high", "medium", "low"]


class Recall(Part):
    expected: Expected
    reasoning: str = ""


class Source(Part):
    source: Literal["import", "webset"]
    id: str


class Relationship(Part):
    definition: str
    limit: PositiveInt | None = None


class Scope(Source):
    relationship: Relationship | None = None


class Search(PartOfWebset):
    object: str = "webset_search"
    status: Literal["created", "pending", "running", "completed", "canceled"] = "created"
    query: str
    entity: Entity | None = None
    criteria: Several[Criterion]
    count: PositiveInt
    max_people_per_company: PositiveInt | None = None
    behavior: Literal["override", "append"] | None = "override"
    exclude: Several[Source]
    scope: Several[Scope]
    progress: Progress = Field(default_factory=Progress)
    recall: Recall | None = None
    metadata: Metadata
    canceled_at: Time | None = None
    canceled_reason: Literal["webset_deleted", "webset_canceled", "out_of_credits"] | None = None


class Option(Part):
    label: str


class Enrichment(PartOfWebset):
    object: str = "webset_enrichment"
    status: Literal["pending", "canceled", "completed"] = "pending"
    title: str | None = None
    description: str
    format: Format | None = None
    options: list[Option] | None = None
    instructions: str | None = None
    metadata: Metadata


class Cadence(Part):
    cron: str
    timezone: str | None = "Etc/UTC"


class SearchConfig(Part):
    count: int
    query: str | None = None
    criteria: list[Description] | None = None
    entity: Entity | None = None
    behavior: Literal["override", "append"] | None = "append"


class SearchBehavior(Part):
    type: Literal["search"]
    config: SearchConfig


class Chosen(Part):
    ids: list[str] | None = None


class RefreshConfig(Part):
    target: str
    enrichments: Chosen | None = None


class RefreshBehavior(Part):
    type: Literal["refresh"]
    config: RefreshConfig


class OtherBehavior(Part):
    type: Annotated[str, word_but("search", "refresh")]
    config: Any


Behavior = Annotated[
    Annotated[SearchBehavior, Tag("~search")]
    | Annotated[RefreshBehavior, Tag("~refresh")]
    | Annotated[OtherBehavior, Tag("~other")],
    by("type", "search", "refresh"),
]


class RunOfMonitor(Resource):
    object: str = "monitor_run"
    status: Literal["created", "running", "completed", "canceled", "failed"] = "created"
    monitor_id: str = Field("", description="That of the monitor it is in if not given.")
    type: Literal["search", "refresh"]
    completed_at: Time | None = None
    failed_at: Time | None = None
    failed_reason: str | None = None
    canceled_at: Time | None = None


class MonitorOfWebset(PartOfWebset):
    object: str = "monitor"
    status: Literal["enabled", "disabled"] = "enabled"
    cadence: Cadence
    behavior: Behavior
    last_run: RunOfMonitor | None = None
    next_run_at: Time | None = None
    metadata: dict[str, str] = Field(default_factory=dict)

    def fill_in(self, time: str) -> None:
        super().fill_in(time)
        if self.last_run:
            self.last_run.monitor_id = self.last_run.monitor_id or self.id
            self.last_run.fill_in(self.created_at)


class Webset(Resource):
    object: str = "webset"
    status: Literal["idle", "pending", "running", "paused"] = "idle"
    dashboard_url: str = ""
    title: str | None = None
    external_id: str | None = None
    searches: Several[Search]
    imports: Several[Any]
    enrichments: Several[Enrichment]
    monitors: Several[MonitorOfWebset]
    metadata: Metadata

    def fill_in(self, time: str) -> None:
        super().fill_in(time)
        for part in [*(self.searches or []), *(self.enrichments or []), *(self.monitors or [])]:
            part.webset_id = part.webset_id or self.id
            part.fill_in(self.created_at)


class WebsetSearch(Search):
    webset_id: str


class Monitor(MonitorOfWebset):
    webset_id: str


class MonitorRun(RunOfMonitor):
    monitor_id: str


class Import(Resource):
    object: str = "import"
    status: Literal["pending", "processing", "completed", "failed", "canceled"] = "pending"
    format: Literal["csv", "webset"]
    entity: Entity | None = None
    title: str = ""
    count: float = 0
    metadata: dict[str, Any] = Field(default_factory=dict)
    failed_reason: Literal["invalid_format", "invalid_file_content", "missing_identifier"] | None = None
    failed_at: Time | None = None
    failed_message: str | None = None
