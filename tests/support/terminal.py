"""A program on a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from typing import Self

DEADLINE = 60  # seconds
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program as the leader of a session that has a terminal; `shown` is what was written there."""

    def __init__(self, command: Sequence[str], columns: int = 120, lines: int = 24) -> None:
        self.control, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._terminal = terminal
        self.before = termios.tcgetattr(terminal)
        self.shown = ""
        self.process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        )

    def type(self, text: str) -> None:
        os.write(self.control, text.encode())

    def wait_for(self, condition: Callable[[str], bool]) -> None:
        """Reads until what was shown is as wanted."""
        deadline = time.monotonic() + DEADLINE
        while not condition(self.shown):
            left = deadline - time.monotonic()
            assert select.select([self.control], [], [], max(0.0, left))[0], self.shown
            self.shown += os.read(self.control, 65536).decode(errors="replace")

    def end(self) -> int:
        """The program's status, when it has ended."""
        status = self.process.wait(DEADLINE)
        while select.select([self.control], [], [], 0)[0]:
            self.shown += os.read(self.control, 65536).decode(errors="replace")
        return status

    @property
    def plain(self) -> str:
        """What was shown, without escape sequences."""
        return _ESCAPES.sub("", self.shown).replace("\r", "")

    @property
    def settings_as_before(self) -> bool:
        return termios.tcgetattr(self._terminal) == self.before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.control)
        os.close(self._terminal)


def drawn_in_place(shown: str) -> bool:
    """Whether something went up and erased what was there."""
    return re.search(r"\x1b\[\d+A\x1b\[J", shown) is not None
