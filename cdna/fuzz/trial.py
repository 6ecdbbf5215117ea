"""A process that carries out cases, each in a child of its own, so that a crash or a hang is an answer.

with Trials() as trials:
    trials(case)                # None, or ("outside", "3 bytes ...")
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from typing import Any

from cdna.base.closing import Closing
from cdna.base.descriptors import readable
from cdna.children import python, worker_environment
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.fuzz.campaign import Breach, Case
from cdna.fuzz.campaigns import campaign_class
from cdna.fuzz.plan import SLICE
from cdna.fuzz.worker import die_with_parent, own_stdout, quiet
from cdna.interrupts import Ends

PATIENCE = 30.0  # seconds until a case that does not end hangs; 20 are what a campaign waits for a frame

TICK = 0.25  # seconds between two looks at whether to go on

Finding = tuple[str, str]  # kind, one line


class Trials(Closing):
    """Called with a case: what it shows when it is carried out. ConfigError: the case is none.

    ends: when it is set, a case under way shows nothing.
    """

    def __init__(self, ends: Ends | None = None, patience: float = PATIENCE) -> None:
        self._ends = ends
        self._process = subprocess.Popen(
            python("cdna.fuzz.trial", str(patience)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=worker_environment(),
            start_new_session=True,
        )

    def __call__(self, case: Case) -> Finding | None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(case) + "\n")
        process.stdin.flush()
        while not readable(
            process.stdout.fileno(), TICK
        ):  # an answer is one line, so none is left in a buffer
            if self._ends is not None and self._ends.is_set():
                return None
        line = process.stdout.readline()
        if not line:
            raise ConfigError(f"trials ended with status {process.wait()}: is the case whole?")
        answer = json.loads(line)
        if "error" in answer:
            raise ConfigError(answer["error"])
        return (answer["kind"], answer["text"]) if answer["kind"] else None

    def close(self) -> None:
        process = self._process
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


# --- in the process -----------------------------------------------------------------------------------------


def carry_out(case: Case) -> None:
    """The steps of a case; those of a whole slice where it died before the first of them. Breach."""
    kind = campaign_class(case["campaign"])
    if "slice" not in case:
        kind.replay(case if "steps" in case else kind.expand(case))
        return
    campaign = kind(case["seed"], **{key: case[key] for key in case.keys() & {"attack"}})
    try:
        campaign.run(SLICE)
    finally:
        campaign.close()


def _replay(case: Case) -> dict[str, Any]:
    try:
        carry_out(case)
    except Breach as breach:
        return {"kind": breach.kind, "text": breach.text}
    except CdnaError as error:
        if isinstance(error, ResourceError) or "attack" in case:  # the user's, or this machine's
            return {"error": str(error)}
        return {"kind": "error", "text": f"{type(error).__name__}: {error}"}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
        return {"kind": "error", "text": text}
    return {"kind": None}


def _in_a_child(case: Case, patience: float) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        die_with_parent()
        os.setpgid(0, 0)
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(_replay(case), pipe)
        os._exit(0)
    os.close(writing)
    said = b""
    pidfd = os.pidfd_open(child)
    try:
        ended = bool(select.select([pidfd], [], [], patience)[0])
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(pidfd)
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reading, 1 << 16):
            said += piece
    os.close(reading)
    if not ended:
        return {"kind": "hang", "text": f"not done after {patience:g} s"}
    return death(os.waitstatus_to_exitcode(status)) or json.loads(said)


def death(status: int) -> dict[str, Any] | None:
    """What the exit status of a process says of its end, if it did not end by itself."""
    if status < 0:
        name = signal.Signals(-status).name
        return {"kind": "crash", "text": f"the process died by {name}"}
    if status > 0:
        return {"kind": "crash", "text": f"the process ended with status {status}"}
    return None


def main() -> None:
    die_with_parent()
    lines = own_stdout()
    quiet()
    patience = float(sys.argv[1])
    for line in sys.stdin:
        case = json.loads(line)
        try:
            campaign_class(case["campaign"])  # imported once, for all children
            answer = _in_a_child(case, patience)
        except CdnaError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=lines)
