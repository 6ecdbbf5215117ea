"""The workers of this machine: started, listened to, and what becomes of those that die."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cdna.children import python, worker_environment
from cdna.errors import ConfigError, ResourceError
from cdna.fuzz.campaign import Breach, Tally
from cdna.fuzz.journal import last_case
from cdna.fuzz.plan import FuzzPlan
from cdna.fuzz.trial import death

HANG = 90.0  # seconds without a line from a worker; a slice takes one
GRACE = 10.0  # seconds for the last slice of a worker that is told to end
SAID = 4000  # characters of what a worker that died wrote to standard error


@dataclass
class Slice:
    """What a worker has done in one slice."""

    campaign: str
    tally: Tally


class _Process:
    """One worker, as the crew holds it."""

    def __init__(self, plan: FuzzPlan, worker: int, seconds: float, folder: Path) -> None:
        self.journal = folder / f"{worker}.journal"
        self.said = folder / f"{worker}.err"
        self.attack = plan.attack
        order = {"plan": asdict(plan), "worker": worker, "seconds": seconds, "journal": str(self.journal)}
        with open(self.said, "wb") as said:
            self.popen = subprocess.Popen(
                python("cdna.fuzz.worker", json.dumps(order)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=worker_environment(),
                start_new_session=True,
            )
        assert self.popen.stdout is not None
        os.set_blocking(self.popen.stdout.fileno(), False)
        self.heard = time.monotonic()
        self.lines = b""
        self.ready = False  # it has imported what it needs
        self.dismissed = False  # it was asked to end

    def take(self) -> tuple[list[dict[str, Any]], bool]:
        """The lines that have come, and whether more may."""
        assert self.popen.stdout is not None
        more = True
        with contextlib.suppress(BlockingIOError):
            while more:
                piece = os.read(self.popen.stdout.fileno(), 1 << 16)
                self.lines += piece
                more = bool(piece)
        *whole, self.lines = self.lines.split(b"\n")
        if whole:
            self.heard = time.monotonic()
        return [json.loads(line) for line in whole], more

    def breach(self, kind: str, text: str) -> Breach:
        """It has died: by the case that it began last."""
        case = last_case(self.journal) or {}
        if self.attack is not None:
            case.setdefault("attack", self.attack)
        said = self.said.read_text(errors="replace")[-SAID:]
        return Breach(kind, f"{text} in campaign {case.get('campaign')}", {**case, "said": said})

    def dismiss(self) -> None:
        """Asks it to end after its slice. One that has not begun has none, and may take long to start."""
        self.dismissed = True
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        if not self.ready:
            self.popen.kill()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class Crew:
    """`plan.jobs` worker processes, numbered from `first`, for `seconds`.

    with Crew(plan, seconds) as crew:
        while crew.working:
            slices = crew.poll(0.25)        # raises Breach, ConfigError
    """

    def __init__(self, plan: FuzzPlan, seconds: float, first: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cdna-fuzz-")
        self._selector = selectors.DefaultSelector()
        self._processes: list[_Process] = []
        self.jobs = plan.jobs
        for worker in range(first, first + plan.jobs):
            process = _Process(plan, worker, seconds, Path(self._folder.name))
            self._processes.append(process)
            assert process.popen.stdout is not None
            self._selector.register(process.popen.stdout, selectors.EVENT_READ, process)

    @property
    def working(self) -> bool:
        return bool(self._selector.get_map())

    def poll(self, timeout: float) -> list[Slice]:
        """What has been done meanwhile; waits for `timeout` seconds at most."""
        slices: list[Slice] = []
        for key, _ in self._selector.select(timeout):
            slices += self._hear(key.data)
        for process in self._processes:
            if process.popen.returncode is None and time.monotonic() - process.heard > HANG:
                raise process.breach("hang", f"no answer for {HANG:g} s")
        return slices

    def _hear(self, process: _Process) -> list[Slice]:
        lines, more = process.take()
        slices = []
        for line in lines:
            process.ready = True
            if "breach" in line:
                raise Breach(**line["breach"])
            if "error" in line:
                raise ConfigError(line["error"])
            if "tally" in line:
                slices.append(Slice(line["campaign"], Tally.of(line["tally"])))
        if not more:
            self._selector.unregister(process.popen.stdout)  # type: ignore[arg-type]
            died = death(process.popen.wait())
            if died is None or (process.dismissed and not process.ready):
                return slices
            if not process.ready:
                last = process.said.read_text(errors="replace").strip().rpartition("\n")[2]
                raise ResourceError(f"a worker did not start: {last or died['text']}")
            raise process.breach(died["kind"], died["text"])
        return slices

    def stop(self) -> list[Slice]:
        """Ends the workers at the end of their slices, and returns these. Breach."""
        for process in self._processes:
            process.dismiss()
        slices, until = [], time.monotonic() + GRACE
        while self.working and time.monotonic() < until:
            slices += self.poll(0.1)
        return slices

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self._selector.close()
        self._folder.cleanup()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
