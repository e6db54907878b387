"""The bounds of everything, in one place. What callers can meet is documented in the protos."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the server enforces. The defaults are the published ones; tests make some of them small."""

    request_bytes_max: int = 1024 * KIB
    event_bytes_max: int = 512 * KIB
    payload_bytes_max: int = 256 * KIB
    error_details_bytes_max: int = 64 * KIB
    run_bytes_max: int = 2 * 1024 * KIB
    step_metadata_bytes_max: int = 16 * KIB
    plan_steps_max: int = 500
    append_group_max: int = 500
    payload_levels_max: int = 16
    response_bytes_max: int = 3 * 1024 * KIB
    """Room is left below the 4 MiB that gRPC clients accept by default."""

    page_size_default: int = 50
    transitions_max: int = 64
    remembered_requests_max: int = 16
    change_attempts_max: int = 10

    calls_per_project_max: int = 256
    watches_per_project_max: int = 5_000
    watches_max: int = 10_000
    watch_queue_max: int = 1_024
    watch_page_size: int = 1_000
    watch_stall_seconds: float = 60.0
    watch_age_seconds: float = 3600.0
    catch_up_streams_max: int = 2
    snapshot_pages_at_once_max: int = 1
    """A store that takes long for a page takes longer for several, until no page comes in time for anybody. The
    embedded one looks at all events of a project for each page, so that pages are large.
    """
    ring_changes_max: int = 10_000
    ring_bytes_max: int = 64 * 1024 * KIB
    ring_age_seconds: float = 600.0
