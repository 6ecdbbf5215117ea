"""Counting the steps of a process, and dying at one of them.

A step is a line of `cdna` that is about to run, in any thread, but for those that only read settings; in a
test build also each point that compiled code has marked by `cdna_step` (`ext/cdna/checks.h`). The counts lie
in a page that the process shares with whoever watches it, who may say at any time where it is to die.
"""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

import cdna
from cdna import checks
from cdna.base.closing import Closing

OURS = str(Path(cdna.__file__).parent)
NOT_OURS = ("/settings.py", "/errors.py")
NEVER = 1 << 62


class Board:
    """The shared page: one party at a time counts there."""

    FIELDS = ("steps", "kill_at", "points", "points_before", "die_at_point", "died_at", "pid", "go", "done")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = np.frombuffer(self._page, np.int64)

    def __getattr__(self, name: str) -> int:
        if name.startswith("_"):
            raise AttributeError(name)
        return int(self._words[self.FIELDS.index(name)])

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._words[self.FIELDS.index(name)] = value

    def clear(self) -> None:
        self._words[:] = 0

    def arm(self, kill_at: int) -> None:
        """Steps are counted from here on; at number `kill_at` the process dies. NEVER: it lives."""
        self.steps = 0
        self.kill_at = kill_at


class Steps:
    """Counts the steps of this process on a board, from `begin` to `end`, while the board is armed."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._words = board._words
        self._ours: dict[CodeType, bool] = {}

    def begin(self) -> None:
        """In this thread, and in those that start later."""
        self._begun = self._board.points_before = checks.steps()
        if self._board.die_at_point:
            checks.kill_at(self._begun + self._board.die_at_point)
        threading.settrace(self._call)
        sys.settrace(self._call)

    def end(self) -> None:
        sys.settrace(None)
        self._board.points += checks.steps() - self._begun

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        ours = self._ours.get(code)
        if ours is None:
            name = code.co_filename
            ours = self._ours[code] = name.startswith(OURS) and not name.endswith(NOT_OURS)
        # Until it is armed no lines are looked at, but of the loops that are in the middle of something then.
        return self._line if ours and (self._words[1] or code.co_name == "_run") else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            words = self._words
            words[0] += 1
            if words[0] == words[1]:
                die(self._board)
        return self._line


class Points(Closing):
    """Those that compiled code of another process has passed, in a test build."""

    def __init__(self, pid: int) -> None:
        self._at, self._die_at = checks.step_words()
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._memory)

    @property
    def passed(self) -> int:
        return int.from_bytes(os.pread(self._memory, 8, self._at), sys.byteorder)

    def arm(self, number: int) -> None:
        """It dies at so many from now on."""
        os.pwrite(self._memory, (self.passed + number).to_bytes(8, sys.byteorder), self._die_at)


def die(board: Board) -> None:
    """As if somebody else had sent it, now."""
    board.died_at = time.monotonic_ns()
    os.kill(os.getpid(), signal.SIGKILL)


def spread(steps: int, kills: int) -> list[int]:
    """The steps at which so many kills happen: each once, then again; of too few kills evenly spread."""
    if kills >= steps:
        return list(itertools.islice(itertools.cycle(range(1, steps + 1)), kills))
    return [1 + i * steps // kills for i in range(kills)]
