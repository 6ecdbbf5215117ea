"""The workers of this machine: started, listened to, and what becomes of those that die."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any

from cdna.base.closing import Closing
from cdna.children import python, worker_environment
from cdna.errors import ConfigError, ResourceError
from cdna.fuzz.campaign import Breach, Tally
from cdna.fuzz.journal import last_case
from cdna.fuzz.plan import FuzzPlan
from cdna.fuzz.trial import death

HANG = 90.0  # seconds without a line from a worker; a slice takes one
HANG_OF_ATTACK = 30.0  # of a user's attack that never returns to the interpreter; others end in `patience`
GRACE = 10.0  # seconds for the last slice of a worker that is told to end
SAID = 4000  # bytes of what a worker that died wrote to standard error


@dataclass
class Slice:
    """What a worker has done in one slice."""

    campaign: str
    tally: Tally


class _Process:
    """One worker, as the crew holds it."""

    def __init__(self, plan: FuzzPlan, worker: int, seconds: float) -> None:
        self._journal = os.memfd_create(f"journal of worker {worker}")  # no file, for a disk may be full
        self.journal = f"/proc/self/fd/{self._journal}"  # here and there
        self.attack = plan.attack
        self.patience = HANG if plan.attack is None else HANG_OF_ATTACK
        order = {"plan": asdict(plan), "worker": worker, "seconds": seconds, "journal": self.journal}
        try:
            self.popen = subprocess.Popen(
                python("cdna.fuzz.worker", json.dumps(order)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(self._journal,),
                env=worker_environment(),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._journal)
            raise
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.stdout, self.stderr = self.popen.stdout.fileno(), self.popen.stderr.fileno()
        for pipe in (self.stdout, self.stderr):
            os.set_blocking(pipe, False)
        self.said = b""  # the end of what it wrote to standard error
        self.heard = time.monotonic()
        self.lines = b""
        self.ready = False  # it has imported what it needs
        self.dismissed = False  # it was asked to end

    def take(self) -> tuple[list[dict[str, Any]], bool]:
        """The lines that have come, and whether more may."""
        more = True
        with contextlib.suppress(BlockingIOError):
            while more:
                piece = os.read(self.stdout, 1 << 16)
                self.lines += piece
                more = bool(piece)
        *whole, self.lines = self.lines.split(b"\n")
        if whole:
            self.heard = time.monotonic()
        return [json.loads(line) for line in whole], more

    def listen(self) -> bool:
        """Read what it has written to standard error. False: there is no more."""
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self.stderr, 1 << 16)
            self.said = (self.said + piece)[-SAID:]
            return bool(piece)
        return True

    def breach(self, kind: str, text: str) -> Breach:
        """It has died: by the case that it began last."""
        case = last_case(self.journal) or {}
        if self.attack is not None:
            case.setdefault("attack", self.attack)
        said = self.said.decode(errors="replace")
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
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        os.close(self._journal)


class Crew(Closing):
    """`plan.jobs` worker processes, numbered from `first`, for `seconds`.

    with Crew(plan, seconds) as crew:
        while crew.working:
            slices = crew.poll(0.25)        # raises Breach, ConfigError
    """

    def __init__(self, plan: FuzzPlan, seconds: float, first: int = 0) -> None:
        self._selector = selectors.DefaultSelector()
        self._processes: list[_Process] = []
        self.jobs = plan.jobs
        try:
            for worker in range(first, first + plan.jobs):
                self._start(_Process(plan, worker, seconds))
        except BaseException:
            self.close()
            raise

    def _start(self, process: _Process) -> None:
        self._processes.append(process)
        self._selector.register(process.stdout, selectors.EVENT_READ, process)
        self._selector.register(process.stderr, selectors.EVENT_READ, process)

    @property
    def working(self) -> bool:
        return any(process.popen.returncode is None for process in self._processes)

    def poll(self, timeout: float) -> list[Slice]:
        """What has been done meanwhile; waits for `timeout` seconds at most."""
        slices: list[Slice] = []
        for key, _ in self._selector.select(timeout):
            if key.fd == key.data.stdout:
                slices += self._hear(key.data)
            elif not key.data.listen():
                self._selector.unregister(key.fd)
        for process in self._processes:
            if process.popen.returncode is None and time.monotonic() - process.heard > process.patience:
                raise process.breach("hang", f"no answer for {process.patience:g} s")
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
            self._selector.unregister(process.stdout)
            process.listen()
            died = death(process.popen.wait())
            if died is None or (process.dismissed and not process.ready):
                return slices
            if not process.ready:
                last = process.said.decode(errors="replace").strip().rpartition("\n")[2]
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
