"""The recording of a run, as JSON lines: how it is written, and how it is read again."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import monotonic, time
from typing import Any, Final, Self

from guarantees.entries import KINDS, Attempt, Begun, Ended, Entry, Fault, Opened, Paused, Read, Survivor, Told

_FIELDS: Final = {each: [one.name for one in fields(each)] for each in KINDS.values()}


class Recorder:
    """Writes the recording as the run goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        """What was done, in words."""
        self._file = path.open("w", encoding="utf-8")

    def add(self, entry: Entry) -> None:
        self._file.write(line_of(entry))

    def begin(self, history_max: int) -> None:
        self.add(Begun(time() - monotonic(), history_max))

    def close(self) -> None:
        self._file.close()


def line_of(entry: Any) -> str:
    content = {name: getattr(entry, name) for name in _FIELDS[type(entry)]}
    return json.dumps({"is": type(entry).__name__, **content}, separators=(",", ":")) + "\n"


@dataclass(slots=True)
class Connection:
    """One stream of a watcher: as it was opened, what it told, and how it ended."""

    opened: Opened
    told: list[Told] = field(default_factory=list)
    ended: Ended | None = None

    @property
    def status(self) -> str:
        return self.ended.status if self.ended else ""

    def __str__(self) -> str:
        return f"stream {self.opened.number} of {self.opened.watcher}"


class Recording:
    """What was recorded, in the order and the groups in which the checks look at it."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.begun = Begun(0.0)
        self.attempts: list[Attempt] = []
        self.reads: list[Read] = []
        self.faults: list[Fault] = []
        self.survivors: set[str] = set()
        self.pauses: defaultdict[str, list[Paused]] = defaultdict(list)
        self.watchers: defaultdict[str, list[Connection]] = defaultdict(list)
        for entry in entries:
            self._take(entry)

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls(_entries(path))

    @property
    def connections(self) -> Iterator[Connection]:
        for connections in self.watchers.values():
            yield from connections

    def faults_between(self, begin: float, end: float, server: int) -> list[Fault]:
        """Those that a server may have felt at some time between two."""
        return [
            fault for fault in self.faults if fault.begin <= end and fault.end >= begin and fault.server in {-1, server}
        ]

    def paused_between(self, watcher: str, begin: float, end: float) -> float:
        """For how long a watcher did not read between two times."""
        pauses = self.pauses.get(watcher, ())
        return sum(max(0.0, min(end, pause.end) - max(begin, pause.begin)) for pause in pauses)

    def wall(self, time: float) -> float:
        """A time of the recording in milliseconds since 1970."""
        return (time + self.begun.wall_ahead) * 1000

    def _take(self, entry: Entry) -> None:
        match entry:
            case Begun():
                self.begun = entry
            case Attempt():
                self.attempts.append(entry)
            case Read():
                self.reads.append(entry)
            case Opened():
                self.watchers[entry.watcher].append(Connection(entry))
            case Told():
                self.watchers[entry.watcher][-1].told.append(entry)
            case Ended():
                self.watchers[entry.watcher][-1].ended = entry
            case Paused():
                self.pauses[entry.watcher].append(entry)
            case Fault():
                self.faults.append(entry)
            case Survivor():
                self.survivors.add(entry.watcher)


def _entries(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            content = json.loads(line)
            kind: Callable[..., Entry] = KINDS[content.pop("is")]
            yield kind(**{name: tuple(each) if isinstance(each, list) else each for name, each in content.items()})
