"""What a campaign of attacks is, what it counts, and what it raises when protection has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

Case = dict[str, Any]  # JSON-able: {"campaign": name, "seed": int, "steps": [...], and what else it needs}
Journal = Callable[[Case], None]


@dataclass
class Tally:
    """Counts of one slice, or of all of them."""

    attempts: int = 0  # steps of attackers: an announcement, a hypercall, a message, a write to a ring
    descriptors: int = 0  # that attackers put before the engine or the VMM, or announced
    frames: int = 0  # of honest neighbours, sent and received and compared
    outside: int = 0  # bytes read or written out of bounds
    lost: int = 0  # frames that neighbours lost
    faults: dict[str, int] = field(default_factory=dict)  # by reason: contexts that were stopped
    refusals: dict[str, int] = field(default_factory=dict)  # by reason: requests that were not granted

    def add(self, other: Tally) -> None:
        self.attempts += other.attempts
        self.descriptors += other.descriptors
        self.frames += other.frames
        self.outside += other.outside
        self.lost += other.lost
        self.faults = dict(Counter(self.faults) + Counter(other.faults))
        self.refusals = dict(Counter(self.refusals) + Counter(other.refusals))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> Tally:
        return cls(**counts)


class Breach(Exception):
    """Protection has failed, or the engine and its model disagree. One line, and the case that shows it.

    kind: "outside" (bytes out of bounds), "lost" (frames of neighbours), "model" (another state than the
    model's), "pin" (a pin, page, descriptor or mapping that was left behind), "crash" (a signal), "hang".
    """

    def __init__(self, kind: str, text: str, case: Case) -> None:
        super().__init__(kind, text, case)
        self.kind, self.text, self.case = kind, text, case

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def no_journal(case: Case) -> None:
    """For a campaign that nobody watches."""


class Campaign(Protocol):
    """Attacks of one kind. The seed decides what is done, the time only how much of it.

    options: `journal`, called with a case before it is carried out, so that it is known where the process
    dies of it. Such a case may have no "steps" yet: `expand` puts them in.
    """

    name: str

    def __init__(self, seed: int, **options: Any) -> None: ...

    def run(self, seconds: float) -> Tally:
        """A slice of at most `seconds`. Raises Breach."""
        ...

    def close(self) -> None:
        """Gives everything back."""
        ...

    @classmethod
    def replay(cls, case: Case) -> None:
        """Carries out the steps of a case, in a machine of its own. Raises Breach if it is still there."""
        ...

    @classmethod
    def expand(cls, case: Case) -> Case:
        """The case with its "steps", made from its seed."""
        return case
