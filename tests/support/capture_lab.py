"""What a capture needs of a lab: a machine with traffic, and its control socket. No namespaces, no root."""

import contextlib
import os
import threading
from pathlib import Path

from cdna.lab.capture import capture_handlers
from cdna.lab.control import ControlServer
from cdna.machine import Machine
from tests.support.frames import frame, mac


class FakeLab:
    """A machine whose two guests send each other frames all the time, and its control socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._rings_before = _rings()
        self.machine = Machine()
        self.alice, self.bob = self.machine.attach("alice"), self.machine.attach("bob")
        self.server = ControlServer(self.path, capture_handlers(self))  # type: ignore[arg-type]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.001):
            self.alice.send([frame(mac(self.bob), mac(self.alice), number + i) for i in range(8)])
            self.machine.step(2)
            self.bob.recv()
            number += 8

    def captures(self) -> bool:
        """Whether somebody captures: the lab then holds a ring."""
        return _rings() > self._rings_before

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()
        self.machine.close()


def _rings() -> int:
    """Rings of captures that this process holds."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them is gone
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum("cdna-capture" in name for name in names)
