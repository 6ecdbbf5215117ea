"""The terminal that a command runs on: whether this process is in front of it, and keys without Enter."""

import enum
import os
import select
import signal
import termios
import time
import tty
from types import FrameType, TracebackType

STDIN, STDOUT, STDERR = 0, 1, 2
GROUP = os.getpgrp()  # asked for before a sandbox is entered
SIZE = os.terminal_size((80, 24))  # for a terminal that does not tell its own


class Place(enum.Enum):
    """Where this process is on a terminal. It draws in front only: elsewhere a shell or its user writes."""

    FRONT = enum.auto()
    BACKGROUND = enum.auto()
    ELSEWHERE = enum.auto()  # no terminal, or that of another session


def place(fd: int) -> Place:
    """Where this process is on the terminal of a descriptor, at this moment: `fg` and `bg` change it."""
    try:
        in_front = os.tcgetpgrp(fd) == GROUP
    except OSError:
        return Place.ELSEWHERE
    return Place.FRONT if in_front else Place.BACKGROUND


def size(fd: int) -> os.terminal_size:
    """Columns and lines of the terminal."""
    columns, lines = os.get_terminal_size(fd)
    return os.terminal_size((columns or SIZE.columns, lines or SIZE.lines))


class Keys:
    """Waits for `q`, if this process is in front of a terminal, and for the end of standard output's reader.

    The terminal gives keys without Enter and without echo meanwhile, and is as before whenever this process
    stops or ends.
    """

    def __init__(self) -> None:
        self._before: list[object] | None = None  # the terminal's settings, while ours hold
        self._handlers: dict[int, object] = {}

    def wait(self, seconds: float) -> bool:
        """Waits that long. False: `q` was pressed, or nobody reads what is shown."""
        until = time.monotonic() + seconds
        poller = select.poll()
        poller.register(STDOUT, 0)  # errors and hang-ups
        if self._take():
            poller.register(STDIN, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            for fd, _ in poller.poll(left * 1000):
                if fd == STDOUT:
                    return False
                if place(STDIN) is not Place.FRONT:  # to read would stop this process
                    poller.unregister(STDIN)
                    continue
                typed = os.read(STDIN, 64)
                if b"q" in typed.lower():
                    return False
                if not typed:
                    poller.unregister(STDIN)
        return True

    def _take(self) -> bool:
        """Has the terminal give single keys. False: it is not this process's to ask."""
        if place(STDIN) is not Place.FRONT:
            return False
        if self._before is None:
            try:
                self._before = termios.tcgetattr(STDIN)
                tty.setcbreak(STDIN, termios.TCSADRAIN)
            except (OSError, termios.error):
                self._before = None
        return self._before is not None

    def _give_back(self) -> None:
        before, self._before = self._before, None
        if before is not None and place(STDIN) is Place.FRONT:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)  # type: ignore[arg-type]

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # for Ctrl-Z, this process stops here
        signal.signal(number, self._end)

    def __enter__(self) -> "Keys":
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            if signal.getsignal(number) == signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number in self._handlers:
            signal.signal(number, signal.SIG_DFL)
