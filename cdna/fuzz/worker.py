"""A worker process: slices of campaigns, one after the other, and a line of JSON for each.

    python("cdna.fuzz.worker", '{"plan": ..., "worker": 0, "seconds": 60, "journal": path}')

    {"ready": true}
    {"campaign": "model", "seed": 17, "tally": {...}}
    {"breach": {"kind": "outside", "text": "...", "case": {...}}}          then it ends
    {"error": "..."}                                                       a mistake of the user's, then too

It ends after its time, when its standard input closes, or by SIGTERM at the end of the slice.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from typing import Any, TextIO

from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.fuzz.campaign import Breach, Tally
from cdna.fuzz.campaigns import campaign_class
from cdna.fuzz.journal import JournalFile, last_case
from cdna.fuzz.plan import FuzzPlan

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """SIGKILL when the thread that started this process has ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def quiet() -> None:
    """What the VMM says of each hostile guest is nobody's news here."""
    logger = logging.getLogger("cdna")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.ERROR)  # mistakes, which a scene counts


def own_stdout() -> TextIO:
    """The standard output for our lines alone; what others print goes to standard error."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lines


class Worker:
    def __init__(self, plan: FuzzPlan, worker: int, seconds: float, journal: str) -> None:
        self.plan = plan
        self.worker = worker
        self.seconds = seconds
        self.journal_path = journal
        self.journal = JournalFile(journal)
        self.stopped = False

    def stop(self, *_: object) -> None:
        self.stopped = True

    def run(self, lines: TextIO) -> None:
        for name in self.plan.campaigns:  # before the time begins
            campaign_class(name)
        until = time.monotonic() + self.seconds
        print(json.dumps({"ready": True}), file=lines)
        for name, seed in self.plan.slices(self.worker):
            left = until - time.monotonic()
            if left <= 0 or self.stopped or select.select([0], [], [], 0)[0]:
                return
            try:
                tally = self._slice(name, seed, min(left, self.plan.slice_seconds))
            except Breach as breach:
                found = {"kind": breach.kind, "text": breach.text, "case": breach.case}
                print(json.dumps({"breach": found}), file=lines)
                return
            print(json.dumps({"campaign": name, "seed": seed, "tally": tally.to_dict()}), file=lines)

    def _slice(self, name: str, seed: int, seconds: float) -> Tally:
        options: dict[str, Any] = {"journal": self.journal}
        if self.plan.attack is not None:
            options["attack"] = self.plan.attack
        self.journal({"campaign": name, "seed": seed, "slice": True})
        campaign = campaign_class(name)(seed, **options)
        try:
            return campaign.run(seconds)
        except (Breach, ResourceError):
            raise
        except Exception as error:  # of the engine's, the VMM's or the campaign's: a finding in any case
            if isinstance(error, ConfigError) and self.plan.attack is not None:
                raise  # of the user's attack
            case = last_case(self.journal_path) or {"campaign": name, "seed": seed}
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
            raise Breach("error", text, case) from error
        finally:
            campaign.close()


def main() -> None:
    die_with_parent()
    order = json.loads(sys.argv[1])
    lines = own_stdout()
    quiet()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = FuzzPlan.from_json(json.dumps(order["plan"]))
    worker = Worker(plan, order["worker"], order["seconds"], order["journal"])
    signal.signal(signal.SIGTERM, worker.stop)
    try:
        worker.run(lines)
    except CdnaError as error:
        print(json.dumps({"error": str(error)}), file=lines)
    lines.flush()
    os._exit(0)  # what a campaign left behind need not be torn down
