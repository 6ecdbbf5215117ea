"""Honest guests that are network namespaces: a lab in a process of its own, and programs that talk UDP."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

from netlab.contenders import CdnaLab

from cdna.errors import ResourceError

from .frames import Counts, Wrong

DATAGRAMS = Path(__file__).with_name("datagrams.py")
COUNT = 200  # datagrams of a turn


class Namespaces:
    """Two guests; the programs of one of them end and begin again."""

    name = "namespaces"
    TURNS = 16  # of one program

    def __init__(self) -> None:
        self.counts = Counts()
        self.pid = 0
        self._lab = CdnaLab(2)
        self._exit = contextlib.ExitStack()
        self._talker: subprocess.Popen[str] | None = None
        self._turns = 0

    def __enter__(self) -> Namespaces:
        self._exit.enter_context(self._lab)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(self._lab.socket))
            self.pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        echo = self._start(2, "echo", self._lab.address(2))
        self._exit.callback(_end, echo)
        if self._said(echo) != "ready":
            raise ResourceError("a program in a namespace has not begun")
        return self

    def _start(self, guest: int, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(DATAGRAMS), *arguments]
        return self._lab.popen(guest, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _said(self, program: subprocess.Popen[str]) -> str:
        assert program.stdout is not None
        return program.stdout.readline().strip()

    def turn(self) -> None:
        if self._talker is None:
            self._talker, self._turns = self._start(1, "talk", self._lab.address(2)), 0
        assert self._talker.stdin is not None
        print(COUNT, file=self._talker.stdin, flush=True)
        told = json.loads(self._said(self._talker) or "{}")
        self.counts.sent += told.get("sent", 0)
        self.counts.received += told.get("received", 0)
        if told.get("sent") != COUNT or told.get("received") != COUNT:
            raise Wrong(f"{COUNT} datagrams were to be sent and to come back: {told}")
        self._turns += 1
        if self._turns == self.TURNS:
            self.rest()

    def rest(self) -> None:
        if self._talker is not None:
            _end(self._talker)
            self._talker = None
            self.counts.comings += 1

    def close(self) -> None:
        self.rest()

    def __exit__(self, *exception: object) -> None:
        self.close()
        self._exit.close()


def _end(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.communicate()
