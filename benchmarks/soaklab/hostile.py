"""Hostile guests of every kind, beside the honest ones, on the same NIC."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from random import Random

from cdna import Machine
from cdna.fuzz.arguments import Step
from cdna.fuzz.campaign import Tally
from cdna.fuzz.hostile_process import HostileProcess
from cdna.fuzz.message_steps import message_steps
from cdna.fuzz.messages import Attacker
from cdna.fuzz.process import ProcessCampaign
from cdna.guests.misbehaviour import HostileGuest
from cdna.settings import ContextSettings
from cdna.vmm.vhost_user import VhostUserServer

from .honest import until


class Mallory:
    """A native guest that misbehaves in every way that others must not notice; stopped, it comes back."""

    name = "native, hostile"
    ACTS = 16  # of a turn

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.acts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.guest: HostileGuest | None = None

    def turn(self) -> None:
        if self.guest is None:
            self.guest = HostileGuest(self.machine, name="oscar")
        for _ in range(self.ACTS):
            self.acts[self.guest.act()] += 1

    def rest(self) -> None:
        if self.guest is not None:
            self.faults.update(report.reason.name for report in self.guest.faults)
            self.guest.close()
            self.guest = None

    close = rest


class Processes:
    """Hostile guests in processes of their own: rows of steps of `cdna fuzz`, one after the other."""

    name = "remote, hostile"

    def __init__(self, machine: Machine, seed: int, folder: Path, process: HostileProcess) -> None:
        self.machine = machine
        self.path = str(folder / "hostile")
        self.server = machine.serve(self.path, control_share=1.0)
        self.process = process  # made before the machine
        self.acts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._random = Random(seed)
        self._secret = self._random.randbytes(8)
        self._steps: list[str] = []  # of the row that it carries out

    def turn(self) -> None:
        if not self._steps or self._ended():
            case = {"seed": self._random.getrandbits(63)}
            row = ProcessCampaign.expand(case)["steps"]
            self._steps = [name for name, _ in row]
            self.process.start(self.path, self._secret, row)

    def _ended(self) -> bool:
        report = self.process.done()
        if report is None:
            return False
        self.acts.update(self._steps)
        self.faults.update(report.get("faults", {}))
        self._steps = []
        return True

    def rest(self) -> None:
        until("a hostile process", lambda: not self._steps or self._ended())
        until("a hostile guest that has ended", lambda: not self.server.guests)

    def close(self) -> None:
        self.process.close()


class InThread:
    """A part that waits for others, such as for replies: it acts all the time, but for when it rests."""

    def __init__(self, part: Frontends) -> None:
        self.part = part
        self.name = part.name
        self._go = threading.Event()
        self._acting = threading.Lock()
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="soak-hostile", daemon=True)
        self._thread.start()

    @property
    def acts(self) -> Counter[str]:
        return self.part.acts

    @property
    def faults(self) -> Counter[str]:
        return self.part.faults

    def _run(self) -> None:
        while self._go.wait() and not self._ended:
            with self._acting:
                try:
                    if self._go.is_set():
                        self.part.turn()
                except Exception as error:  # of whatever kind: it is raised where somebody looks
                    self._error, self._ended = error, True

    def turn(self) -> None:
        if self._error is not None:
            raise self._error
        self._go.set()

    def rest(self) -> None:
        self._go.clear()
        with self._acting:
            self.part.rest()

    def close(self) -> None:
        self.rest()
        self._ended = True
        self._go.set()
        self._thread.join()


class Frontends:
    """Hostile vhost-user frontends, with the messages, the memory and the rings of `cdna fuzz`."""

    name = "vhost-user, hostile"

    def __init__(self, seed: int, folder: Path, server: VhostUserServer) -> None:
        settings = ContextSettings(protection="table", mac="02:00:00:00:00:11")
        self.guest = server.add("eve", folder / "eve.sock", settings=settings)
        self.acts: Counter[str] = Counter()
        self.tally = Tally()
        self._random = Random(seed)
        self._row: list[Step] = []
        self._attacker: Attacker | None = None

    @property
    def faults(self) -> Counter[str]:
        return Counter(self.tally.refusals)

    def turn(self) -> None:
        if self._attacker is None:
            self._attacker = Attacker(self.guest, self.tally)
            self._row = message_steps(self._random)
        step = self._row.pop(0)
        self._attacker.do(step)
        self.acts[step[0]] += 1
        if not self._row:
            self.rest()

    def rest(self) -> None:
        if self._attacker is not None:
            self._attacker.close()
            self._attacker = None
        until("a hostile frontend that has gone", lambda: not self.guest.connected)

    close = rest
