"""How events and runs are followed: where they differ in a watch of one of them."""

from __future__ import annotations

from tidings.v1.event_pb2 import Event, StateTransition
from tidings.v1.event_service_pb2 import EventChange, EventParent
from tidings.v1.run_pb2 import Run
from tidings.v1.run_service_pb2 import RunChange
from tidings.v1.task_pb2 import TaskStatus
from tidings_server.event_record import check_parent
from tidings_server.lifecycle import TERMINAL
from tidings_server.run_record import check_mission
from tidings_server.store import EventStore, RunStore
from tidings_server.watch.bulk_reader import BulkReader
from tidings_server.watch.state_watch import Followed


def followed_event(
    events: BulkReader, store: EventStore, project: str, event_id: str, parent: EventParent
) -> Followed[Event]:
    async def read() -> Event:
        event = await events.get(project, event_id)
        check_parent(event, parent)
        return event

    return Followed(
        read=read,
        last=lambda: store.last(project, event_id),
        is_final=lambda event: not event.HasField("status") or event.status.state in TERMINAL,
        message=lambda kind, event, **more: EventChange(kind=kind, event=event, **more),
        at=_event_at,
    )


def followed_run(runs: RunStore, project: str, run_id: str, mission_id: str) -> Followed[Run]:
    async def read() -> Run:
        run = await runs.get(project, run_id)
        check_mission(run, mission_id)
        return run

    return Followed(
        read=read,
        last=lambda: runs.last(project, run_id),
        is_final=lambda run: run.state in TERMINAL,
        message=lambda kind, run, **more: RunChange(kind=kind, run=run, **more),
        at=_run_at,
    )


def _event_at(event: Event, transition: StateTransition) -> Event:
    status = TaskStatus(
        task_id=event.event_id,
        state=transition.to,
        message=transition.message,
        update_time=transition.time,
        revision=transition.revision,
    )
    return Event(
        event_id=event.event_id,
        type=event.type,
        mission_id=event.mission_id,
        run_id=event.run_id,
        step_id=event.step_id,
        agent_id=event.agent_id,
        sequence=event.sequence,
        status=status,
        update_time=transition.time,
        revision=transition.revision,
    )


def _run_at(run: Run, transition: StateTransition) -> Run:
    return Run(
        run_id=run.run_id,
        mission_id=run.mission_id,
        state=transition.to,
        update_time=transition.time,
        revision=transition.revision,
    )
