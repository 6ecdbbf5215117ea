"""A run of `cdna fuzz`: campaigns on all cores or machines until the time is over, or protection fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdna.errors import CdnaError, ConfigError
from cdna.fuzz.campaign import Breach, Case, Tally
from cdna.fuzz.campaigns import campaign_class
from cdna.fuzz.cluster import Cluster
from cdna.fuzz.crew import Crew, Slice
from cdna.fuzz.plan import FuzzPlan
from cdna.fuzz.shrink import BUDGET, shrink
from cdna.fuzz.trial import Finding, Trials
from cdna.interrupts import Ends

TICK = 0.25  # seconds between two looks
FORMAT = 1  # of a file with a case


@dataclass
class Found:
    """A breach, its case as it was and as it was shrunk. again: whether it failed once more."""

    kind: str
    text: str
    case: Case
    steps: int  # before it was shrunk
    again: bool
    said: str = ""
    note: str = ""  # why it could not be carried out again

    @property
    def name(self) -> str:
        """Of its file."""
        return f"fuzz-{self.kind}-{self.case.get('campaign', 'start')}-{self.case.get('seed', 0)}.json"

    def to_json(self) -> str:
        found = {"kind": self.kind, "text": self.text, "again": self.again, "said": self.said}
        return json.dumps({"cdna fuzz": FORMAT, **found, "case": self.case}, indent=1) + "\n"


@dataclass
class FuzzResult:
    """What a run came to, as far as it came. seconds: that it took."""

    plan: FuzzPlan
    jobs: int = 0
    seconds: float = 0.0
    campaigns: dict[str, Tally] = field(default_factory=dict)
    found: Found | None = None

    @property
    def tally(self) -> Tally:
        total = Tally()
        for tally in self.campaigns.values():
            total.add(tally)
        return total

    @property
    def broken(self) -> bool:
        tally = self.tally
        return self.found is not None or bool(tally.outside or tally.lost)

    def add(self, slices: list[Slice]) -> None:
        for one in slices:
            self.campaigns.setdefault(one.campaign, Tally()).add(one.tally)

    def to_json(self) -> str:
        found = self.found
        result: dict[str, Any] = {
            "seed": self.plan.seed,
            "seconds": round(self.seconds, 3),
            "jobs": self.jobs,
            **self.tally.to_dict(),
            "campaigns": {name: tally.to_dict() for name, tally in self.campaigns.items()},
            "breach": found and {"kind": found.kind, "text": found.text, "case": found.case},
        }
        return json.dumps(result, indent=1) + "\n"


Watch = Callable[[FuzzResult, str], None]  # what there is so far, and what goes on beside it


def fuzz(plan: FuzzPlan, result: FuzzResult, watch: Watch, ends: Ends, dask: str | None = None) -> None:
    """Runs until the time is over, the descriptors are reached, `ends` is set, or there was a breach.

    result: filled in while it runs. dask: the address of a scheduler; None: on this machine.
    """
    started = time.monotonic()
    try:
        with Crew(plan, plan.seconds) if dask is None else Cluster(plan, plan.seconds, dask) as crew:
            result.jobs = crew.jobs
            while crew.working and not ends.is_set() and not _enough(plan, result):
                result.add(crew.poll(TICK))
                result.seconds = time.monotonic() - started
                watch(result, "")
            result.add(crew.stop())
            result.seconds = time.monotonic() - started
    except Breach as error:
        breach = error
        result.seconds = time.monotonic() - started
        watch(result, f"{breach.kind} found; shrinking it")
        left = "{} found; {} steps are left".format
        try:
            result.found = examine(breach, lambda n: watch(result, left(breach.kind, n)), ends)
        except (CdnaError, OSError) as error:  # which does not undo the breach
            case = {key: value for key, value in breach.case.items() if key != "said"}
            said = breach.case.get("said", "")
            result.found = Found(breach.kind, breach.text, case, 0, False, said, note=str(error))


def _enough(plan: FuzzPlan, result: FuzzResult) -> bool:
    return 0 < plan.descriptors <= result.tally.descriptors


def examine(breach: Breach, watch: Callable[[int], None], ends: Ends) -> Found:
    """A breach's case, made small by carrying it out again and again in processes of its own."""
    case = dict(breach.case)
    said = case.pop("said", "")
    if "campaign" not in case:
        return Found(breach.kind, breach.text, case, 0, False, said)
    whole = case  # which may be no more than a seed
    if "steps" not in case and "slice" not in case:
        case = campaign_class(case["campaign"]).expand(case)
    before = len(case.get("steps", ()))
    with Trials(ends) as trials:

        def attempt(case: Case) -> Finding | None:
            return None if ends.is_set() else trials(case)

        if "steps" in case:
            case, finding = shrink(case, breach.kind, attempt, BUDGET, watch)
        else:
            finding = attempt(case)
    if finding is None:
        return Found(breach.kind, breach.text, whole, before, False, said)
    return Found(breach.kind, finding[1], case, before, True, said)


def read_case(path: Path) -> Case:
    """The case of a file that `cdna fuzz` wrote. ConfigError."""
    advice = "give a file that cdna fuzz wrote"
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--replay {path}: cannot be read ({error.strerror}); {advice}") from None
    except ValueError:
        raise ConfigError(f"--replay {path}: no JSON; {advice}") from None
    case = found.get("case") if isinstance(found, dict) else None
    if not isinstance(case, dict) or found.get("cdna fuzz") != FORMAT or "campaign" not in case:
        raise ConfigError(f"--replay {path}: no case of cdna fuzz; {advice}")
    campaign_class(case["campaign"])
    return case


def replay(case: Case) -> Finding | None:
    """Carries a case out in a process of its own: what it shows."""
    with Trials() as trials:
        return trials(case)
