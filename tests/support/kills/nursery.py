"""A process that was forked before there were threads, and that forks those who are to die.

It has imported what they need, so that one takes a millisecond or two. All of them die with who started them.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable

from tests.support.kills.steps import NEVER, Board, Steps

PR_SET_PDEATHSIG = 1
BY_HAND = -1  # `Board.died_at` of one that did not reach its step
_libc = ctypes.CDLL(None)


class PartyFailed(Exception):
    """A party has ended in a way that nobody intended; the argument says how."""


class Nursery:
    """parties: by name, what each does: called with its `Steps`, its `Board`, and arguments that JSON has."""

    def __init__(self, parties: dict[str, Callable[..., None]]) -> None:
        self.board = Board()
        self._parties = parties
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.collect()
        gc.freeze()
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            try:
                self._sock.close()
                _die_with(parent)
                self._serve(theirs)
            finally:
                os._exit(0)
        gc.unfreeze()
        theirs.close()
        self._running = False

    # --- for who watches ------------------------------------------------------------------------------------

    def start(self, party: str, *args: object, kill_at: int = NEVER, point: int = 0) -> None:
        """Starts one. kill_at: a step, 0: none are counted; point: one that is marked in compiled code."""
        assert not self._running
        self.board.clear()
        self.board.kill_at = kill_at
        self.board.die_at_point = point
        self._sock.send(json.dumps([party, args]).encode())
        self._running = True

    def ended(self, wait: float = 0.0) -> bool:
        """Whether the one that was started has ended. PartyFailed: not by a signal, and not as intended."""
        if not self._running:
            return True
        if not select.select([self._sock], [], [], wait)[0]:
            return False
        assert self._sock.recv(65536) == b"ended"
        self._sock.send(b"!")
        status, text = json.loads(self._sock.recv(65536))
        self._running = False
        if status not in (0, -signal.SIGKILL):
            raise PartyFailed(f"status {status}: {text}")
        return True

    def kill(self) -> None:
        """Kills it now; returns when it has ended."""
        if self._running:
            while not self.board.pid:
                assert not self.ended(0.0005)
            if not self.board.died_at:
                self.board.died_at = BY_HAND
            os.kill(self.board.pid, signal.SIGKILL)
            assert self.ended(20.0)

    def close(self) -> None:
        self._sock.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    # --- in the nursery -------------------------------------------------------------------------------------

    def _serve(self, sock: socket.socket) -> None:
        while order := sock.recv(65536):
            party, args = json.loads(order)
            reader, writer = os.pipe()
            parent = os.getpid()
            pid = os.fork()
            if not pid:
                self._live(parent, writer, party, args)
            os.close(writer)
            with open(reader, "rb") as told:
                text = told.read().decode()
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            if ended is not None and ended.si_code == os.CLD_KILLED and not self.board.died_at:
                self.board.died_at = time.monotonic_ns()
            sock.send(b"ended")
            sock.recv(1)  # until then nobody else gets its number
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            sock.send(json.dumps([status, text]).encode())

    def _live(self, parent: int, writer: int, party: str, args: list[object]) -> None:
        status = 1
        try:
            _die_with(parent)
            self.board.pid = os.getpid()
            self._parties[party](Steps(self.board), self.board, *args)
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-8000:])
        finally:
            os._exit(status)


def _die_with(parent: int) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
