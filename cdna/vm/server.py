"""`cdna serve` in a process of its own, in the network namespace of a `HostNetwork`."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cdna.base.closing import Closing
from cdna.children import python
from cdna.errors import ResourceError
from cdna.vm.machine import die_with_parent

if TYPE_CHECKING:
    from cdna.vm.host import HostNetwork

READY_SECONDS = 60.0
END_SECONDS = 20.0


def cdna(*arguments: str) -> list[str]:
    """The command line of `cdna` as this process would import it."""
    return python("cdna.cli", *arguments)


class ServeProcess(Closing):
    """A `cdna serve` that is ready when this is made. ResourceError: it says what is wrong.

    contexts: what --context takes, each; wire: what --wire takes. The sockets of guests are files in
    `place`, a directory that goes with this; `{place}` in a context stands for it.
    """

    def __init__(self, host: HostNetwork, contexts: Sequence[str], wire: str = "null") -> None:
        self._undo = contextlib.ExitStack()
        self.place = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="cdna-vm-")))
        self.host = host
        self.control = self.place / "control"
        self._arguments = ["serve", "--wire", wire, "--socket", str(self.control)]
        for context in contexts:
            self._arguments += ["--context", context.replace("{place}", str(self.place))]
        self._errors = self._undo.enter_context((self.place / "errors").open("w+"))
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        self._undo.callback(self.end)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has written on standard error."""
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace")

    def start(self) -> None:
        """Starts it, the first time or again after `kill` or `end`."""
        self._process = self.host.popen(
            cdna(*self._arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            before=die_with_parent,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], READY_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line.startswith("serving:"):
            self.kill()
            raise ResourceError(self.log.strip()[-1000:] or "cdna serve: not ready")

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._reap()

    def end(self) -> int:
        """Asks it to end. Returns its exit status."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._reap()

    def close(self) -> None:
        """Ends it and removes its directory. Closing twice is harmless."""
        self._undo.close()

    def _reap(self) -> int:
        status = self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status
