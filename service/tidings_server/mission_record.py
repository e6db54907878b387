"""The record of a mission. Pure."""

from __future__ import annotations

from typing import Final, Literal

import uuid_utils

from tidings.v1 import error_reason_pb2 as reasons
from tidings.v1 import mission_pb2
from tidings.v1.mission_pb2 import Mission
from tidings.v1.mission_service_pb2 import CreateMissionRequest, UpdateMissionRequest
from tidings.v1.task_pb2 import TASK_STATE_UNSPECIFIED
from tidings_server.limits import Limits
from tidings_server.record import Kind, Record, begun, digest_of

_SET_BY_SERVICE: Final[tuple[Literal["create_time", "update_time", "revision"], ...]] = (
    "create_time",
    "update_time",
    "revision",
)


def new_mission(project: str, request: CreateMissionRequest, now: int, limits: Limits) -> Record[Mission]:
    """The record of the mission that a checked request asks for, with everything stamped."""
    mission = Mission()
    mission.CopyFrom(request.mission)
    for name in _SET_BY_SERVICE:
        mission.ClearField(name)
    record = Record(project, mission, digest_of(mission))
    mission.mission_id = mission.mission_id or str(uuid_utils.uuid7())
    mission.execution_mode = mission.execution_mode or mission_pb2.EXECUTION_MODE_EXTERNAL
    return begun(MISSION, record, now, limits, "mission")


def apply_update(mission: Mission, request: UpdateMissionRequest) -> bool:
    """Copy the fields that the mask names; False if they are so already."""
    wanted = Mission()
    wanted.CopyFrom(mission)
    # A field that the mask names and the request leaves empty becomes empty.
    request.update_mask.MergeMessage(request.mission, wanted, replace_message_field=True)
    wanted.execution_mode = wanted.execution_mode or mission_pb2.EXECUTION_MODE_EXTERNAL
    if wanted == mission:
        return False
    mission.CopyFrom(wanted)
    return True


MISSION: Final[Kind[Mission]] = Kind(
    noun="mission",
    not_found=reasons.ERROR_REASON_MISSION_NOT_FOUND,
    expired=reasons.ERROR_REASON_MISSION_NOT_FOUND,
    already_exists=reasons.ERROR_REASON_MISSION_ALREADY_EXISTS,
    state_of=lambda _: TASK_STATE_UNSPECIFIED,
    settle=lambda *_: None,
    bytes_max=lambda limits: limits.event_bytes_max,
)
