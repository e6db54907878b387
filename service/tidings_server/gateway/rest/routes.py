"""The routes of Tidings' own face, as a table: every RPC is here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from tidings_server.gateway.refusal import Refusal
from tidings_server.gateway.rest.route import Route

PREFIX: Final = "/tidings/v1"

_EVENT = "/events/{eventId}"
_TASK = "/tasks/{taskId}"
_MISSION = "/missions/{missionId}"
_RUN = "/runs/{runId}"
_WATCH = "events.WatchEvent"
_PROJECT = {"project": dict[str, str]()}

# Filters, parents and staying open are not for the watches of everything: the service would refuse them.
_ONE = frozenset({"filter"})
_RUNS = frozenset({"stayOpen", "parent.runId"})
_MANY = frozenset({"stayOpen", "parent"})

ROUTES: Final = (
    Route("POST", "/events", "events.CreateEvent", "Store an event"),
    Route("GET", "/events", "events.ListEvents", "List events"),
    Route("POST", "/events:batchCreate", "events.BatchCreateEvents", "Store up to 500 events, each for itself"),
    Route("POST", "/events:batchGet", "events.BatchGetEvents", "Get up to 500 events"),
    Route("GET", _EVENT, "events.GetEvent", "Get an event"),
    Route("DELETE", _EVENT, "events.DeleteEvent", "Delete an event"),
    Route("GET", f"{_EVENT}:watch", _WATCH, "Watch an event to its end", without=_ONE),
    Route("GET", f"{_RUN}/events:watch", _WATCH, "Watch a run's events", "watchRunEvents", without=_RUNS),
    Route("GET", f"{_MISSION}/events:watch", _WATCH, "Watch a mission's events", "watchMissionEvents", without=_MANY),
    Route("GET", "/events:watch", _WATCH, "Watch all events", "watchEvents", fixed=_PROJECT, without=_MANY),
    Route("GET", _TASK, "tasks.GetTaskStatus", "Get a task's status"),
    Route("PATCH", _TASK, "tasks.UpdateTaskStatus", "Change a task's status"),
    Route("POST", f"{_TASK}:cancel", "tasks.CancelTask", "Ask for a task to be cancelled"),
    Route("GET", f"{_TASK}:wait", "tasks.WaitTaskStatus", "Wait until a task has ended, or has changed"),
    Route("POST", "/missions", "missions.CreateMission", "Store a mission"),
    Route("GET", "/missions", "missions.ListMissions", "List missions"),
    Route("GET", _MISSION, "missions.GetMission", "Get a mission"),
    Route("PATCH", _MISSION, "missions.UpdateMission", "Change a mission", ids_in="mission"),
    Route("DELETE", _MISSION, "missions.DeleteMission", "Delete a mission with its runs and their events"),
    Route("POST", "/runs", "runs.CreateRun", "Store a run"),
    Route("GET", "/runs", "runs.ListRuns", "List runs, without their plans"),
    Route("GET", _RUN, "runs.GetRun", "Get a run with its plan"),
    Route("PATCH", _RUN, "runs.UpdateRun", "Change a run"),
    Route("POST", f"{_RUN}:pause", "runs.PauseRun", "Pause a run"),
    Route("POST", f"{_RUN}:resume", "runs.ResumeRun", "Resume a run"),
    Route("POST", f"{_RUN}:cancel", "runs.CancelRun", "Cancel a run"),
    Route("GET", f"{_RUN}:watch", "runs.WatchRun", "Watch a run with its plan to its end"),
    Route("GET", f"{_RUN}/plan", "runs.GetPlan", "Get a run's plan"),
    Route("POST", f"{_RUN}/plan", "runs.CreatePlan", "Give a run its plan"),
    Route("POST", f"{_RUN}/plan/steps", "runs.AddPlanSteps", "Add steps to a run's plan"),
    Route("PATCH", f"{_RUN}/plan/steps/{{stepId}}", "runs.UpdatePlanStep", "Change a step of a run's plan"),
)

# A path that ends in a verb is not also an id that does: the longer pattern comes first.
_BY_PATH = sorted({route.path for route in ROUTES}, key=len, reverse=True)
_ROUTES = {path: {route.method: route for route in ROUTES if route.path == path} for path in _BY_PATH}


def find(method: str, raw_path: bytes) -> tuple[Route, Mapping[str, str]]:
    """The route that a request is for, and the ids in its path. Raises Refusal if there is none.

    The path is taken as it was sent, so that an id may have the `:` of a verb percent-encoded.
    """
    path = re.sub("/{2,}", "/", raw_path.decode("latin-1")).removeprefix(PREFIX).rstrip("/")
    for routes in _ROUTES.values():
        found = next(iter(routes.values())).pattern.fullmatch(path)
        if found and method not in routes:
            raise Refusal(405, f"{method} is not for this path", more_headers={"allow": ", ".join(sorted(routes))})
        if found:
            return routes[method], {name: _decoded(text) for name, text in found.groupdict().items()}
    raise Refusal(404, "there is nothing under this path")


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise Refusal(400, "the path is not UTF-8") from error
