"""Campaign "process": hostile guests in processes of their own, beside honest neighbours, the engine running.

A row of steps is carried out by a process that has nothing but the VMM's socket (`hostile_process`), while
the neighbours talk all the time. At its end everything is looked at: memory, frames, pins, descriptors.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from cdna.fuzz.arguments import Step
from cdna.fuzz.campaign import Breach, Case, Tally
from cdna.fuzz.hostile_process import HostileProcess
from cdna.fuzz.neighbours import Harm, Scene, Turns
from cdna.fuzz.schedules import ScheduleCampaign
from cdna.nic.queue_wire import QueueWire
from cdna.protocol.hypercall import Hypercall

PAGES = 64  # of a hostile guest
SCENE_PAGES = 600  # that foreign pages are drawn from; the last ones lie behind the end
PROTECTIONS = ("validated", "validated", "iommu:direct-map", "iommu:shared", "iommu:single-use")
PATIENCE = 20.0  # seconds until a guest that has ended is taken back
MACS = ("own", "02ffffffff01", "ffffffffffff", "02cd0a000000", "02cd0a000001")
NEIGHBOURS = {"vlan": 7, "rx_ring": 256}  # hostile guests have no VLAN: what they send must not arrive there
LENGTH = 60  # steps of a row, at most


class ProcessCampaign(ScheduleCampaign):
    name = "process"

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self._hostile = HostileProcess()  # before the machine
        self._turns = Turns()
        self._folder = tempfile.TemporaryDirectory(prefix="cdna-fuzz-")
        self._path = Path(self._folder.name) / "vmm"
        self._wire = QueueWire(4096)
        self._scene = Scene(seed, self._wire, room=PAGES, **NEIGHBOURS)
        self._server = self._scene.machine.serve(self._path, protections=tuple(dict.fromkeys(PROTECTIONS)))
        self._scene.machine.start()
        gc.collect()
        self._files = _files()

    def close(self) -> None:
        self._turns.close()
        self._scene.close()
        self._hostile.close()
        self._folder.cleanup()

    @classmethod
    def expand(cls, case: Case) -> Case:
        return {**case, "steps": _Steps(case["seed"]).row()}

    def play(self, case: Case, tally: Tally) -> None:
        steps: list[Step] = case["steps"]
        try:
            self._hostile.start(str(self._path), self._scene.secret, steps)
            while (report := self._hostile.done()) is None:
                self._look(tally)
            tally.attempts += len(steps)
            tally.add(Tally.of(report.get("counts", {})))
            self._settle()
            self._look(tally)
            self._scene.check_held()
            for text in report.get("wrong", ()):
                raise Harm("outside", text)
            if (files := _files()) > self._files:
                raise Harm("pin", f"{files} files are open where {self._files} were")
        except Harm as harm:
            raise Breach(harm.kind, harm.text, case) from None

    def _look(self, tally: Tally) -> None:
        scene = self._scene
        scene.talk(tally, None, strangers=False)
        scene.check(tally)
        scene.look_for_secret("a frame on the wire", *self._wire.get())

    def _settle(self) -> None:
        """Returns when the guest has been taken back."""
        until = time.monotonic() + PATIENCE
        while "mallory" in self._scene.machine.vmm.guests or self._server.sessions:
            if time.monotonic() > until:
                raise Harm("pin", f"a guest that has ended was not taken back in {PATIENCE:g} s")
            time.sleep(0.0005)


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


class _Steps:
    """Rows of steps from a seed: most of them come from a guest that is attached, some from none."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def row(self) -> list[Step]:
        random = self.random
        steps = [self._hello()]
        names = [*self.KINDS]
        for _ in range(random.randint(1, LENGTH)):
            step = getattr(self, "_" + random.choice(names))()
            steps.append(step)
        if random.random() < 0.3:
            steps.append([random.choice(("die", "close")), {}])
        return steps

    # As often as they are named.
    KINDS = (
        *("leak", "plant", "ring", "enqueue") * 6,
        *("frames", "buffers", "hello") * 4,
        *("announce", "map", "unmap") * 2,
        *(
            "mailbox",
            "garbage",
            "reap",
            "status",
            "throw_away",
            "truncate",
            "write_rings",
            "unread",
            "message",
        ),
    )

    def _hello(self) -> Step:
        random = self.random
        if random.random() < 0.05:
            text = random.choice(
                (random.randbytes(random.randrange(1, 200)), b"[" * 4000, b"{}", bytes(5000))
            )
            return ["hello", {"text": text.hex(), "descriptors": random.choice((0, 1, 9))}]
        settings: dict[str, Any] = {
            "protection": random.choice(PROTECTIONS),
            "tx_ring": random.choice((8, 16, 64)),
            "rx_ring": random.choice((8, 64, 256)),
        }
        if random.random() < 0.05:
            settings[random.choice(("tx_ring", "vlan", "weight", "mac"))] = random.choice(
                (0, 7, -1, "x", [1])
            )
        return ["attach", {"pages": random.choice((1, 4, PAGES, PAGES, 1 << 20)), "settings": settings}]

    def _request(self, flags: int = 1) -> list[Any]:
        """[base, page, offset, length, flags], most of them such that only the address may be wrong."""
        random = self.random
        base = random.choice(("own", "own", "machine", "machine", "machine", "end", "wild"))
        page = random.randrange(PAGES if base == "own" else SCENE_PAGES)
        offset = random.choice((0, 0, 1, 64, 4095, random.randrange(4096)))
        length = random.choice((60, 1514, 2048))
        if random.random() < 0.1:
            length = random.choice((0, 1, 13, 65535, random.randrange(65536)))
        if random.random() < 0.1:
            flags = random.choice((0, 1, 2, 3, 4, 0x8000))
        return [base, page, offset, length, flags]

    def _leak(self) -> Step:
        random = self.random
        parts = random.choice((1, 1, 1, 2, 4, 31))
        rows = [self._request(int(i == parts - 1)) for i in range(parts)]
        return ["leak", {"rows": rows, "to": random.choice(MACS)}]

    def _plant(self) -> Step:
        return ["plant", {"row": self._request(0), "size": self.random.choice((60, 1514))}]

    def _enqueue(self) -> Step:
        random = self.random
        rows = [self._request() for _ in range(random.randint(1, 4))]
        repeat = random.choice((1, 1, 2, 8, 64))
        return ["enqueue", {"ring": random.choice((0, 0, 0, 1, 1, 2, 7)), "rows": rows, "repeat": repeat}]

    def _ring(self) -> Step:
        """Under an address that is announced later, or was before."""
        random = self.random
        rows = [self._request() for _ in range(random.randint(1, 8))]
        return [
            "ring",
            {"ring": random.randrange(2), "ahead": random.choice((0, 0, -1, -8, 3)), "rows": rows},
        ]

    def _frames(self) -> Step:
        random = self.random
        size = random.choice((14, 60, 1514, 4000))
        return ["frames", {"count": random.randint(1, 64), "size": size, "to": random.choice(MACS)}]

    def _buffers(self) -> Step:
        return ["buffers", {"count": self.random.randint(1, 64), "page": self.random.randrange(PAGES)}]

    def _announce(self) -> Step:
        ahead = self.random.choice((0, 0, 1, 1, 2, 64, -1, 1 << 31))
        return ["announce", {"ring": self.random.randrange(2), "ahead": ahead}]

    def _mailbox(self) -> Step:
        value = self.random.choice((0, 1, 8, 64, self.random.getrandbits(32)))
        return ["mailbox", {"mailbox": self.random.choice((0, 1, 2, 2, 3, 23)), "value": value}]

    def _map(self) -> Step:
        random = self.random
        io_pages = [random.choice((random.randrange(128), random.getrandbits(32))) for _ in range(3)]
        base = random.choice(("own", "own", "machine", "end"))
        return ["map_pages", {"io_pages": io_pages, "base": base, "page": random.randrange(SCENE_PAGES)}]

    def _unmap(self) -> Step:
        return ["unmap_pages", {"io_pages": [self.random.randrange(128) for _ in range(4)]}]

    def _garbage(self) -> Step:
        random = self.random
        return [
            "garbage",
            {
                "file": random.choice(("page", "memory", "rings")),
                "seed": random.getrandbits(32),
                "offset": random.randrange(1 << 16) & ~3,
                "size": random.choice((4, 64, 4096, 1 << 18)),
            },
        ]

    def _throw_away(self) -> Step:
        return ["throw_away", {"file": self.random.choice(("page", "memory", "rings"))}]

    def _truncate(self) -> Step:
        file = self.random.choice(("page", "memory", "rings"))
        return ["truncate", {"file": file, "size": self.random.choice((0, 4096, 1 << 30))}]

    def _message(self) -> Step:
        random = self.random
        op = random.choice((*map(int, Hypercall), 0, 6, 65535))
        count = random.choice((0, 1, 2, 257, 1 << 28, (1 << 32) - 1))
        head = op.to_bytes(2, "little") + bytes([random.choice((0, 1, 2)), 0]) + count.to_bytes(4, "little")
        data = head + bytes(8) + random.randbytes(random.choice((0, 4, 8, 16, 32, 4112)))
        return ["message", {"text": data.hex(), "descriptors": random.choice((0, 0, 1, 60))}]

    def _unread(self) -> Step:
        return ["unread", {"count": self.random.choice((1, 10, 2000))}]

    def _reap(self) -> Step:
        return ["reap", {}]

    def _status(self) -> Step:
        return ["status", {}]

    def _write_rings(self) -> Step:
        return ["write_rings", {}]
