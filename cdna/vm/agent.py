"""Commands inside a guest, by the guest's second serial port; the other end is init.sh.

to the guest      number SP base64(command) LF
from the guest    LF number SP status SP base64(output) LF      0 is no command: the guest has booted
"""

from __future__ import annotations

import base64
import itertools
import re
import socket
import time
from dataclasses import dataclass

from cdna.errors import ResourceError

BOOTED = 0
_ANSWER = re.compile(rb"(\d+) (\d+) ([A-Za-z0-9+/=]*)$")


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status, and what it wrote on standard output and standard error."""

    status: int
    output: str


class Agent:
    """The host's end. Several commands may run at a time; each has a number, which `start` returns."""

    _numbers = itertools.count(BOOTED + 1)  # of all guests: one may take over another's at migration

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._answers: dict[int, Result] = {}

    def start(self, command: str) -> int:
        """Has the guest's shell run a command."""
        number = next(self._numbers)
        self._sock.settimeout(None)
        self._sock.sendall(b"%d %s\n" % (number, base64.b64encode(command.encode())))
        return number

    def wait(self, number: int, seconds: float) -> Result:
        """How a command ended. TimeoutError: it runs still; ResourceError: the guest is no more."""
        deadline = time.monotonic() + seconds
        while number not in self._answers:
            self._read(deadline)
        return self._answers.pop(number)

    def forget_boot(self) -> None:
        """What comes next is the answer of a guest that boots anew."""
        self._answers.pop(BOOTED, None)

    def take_over(self, other: Agent) -> None:
        """Goes on where another agent was: the guest has moved, and answers here from now on."""
        self._answers.update(other._answers)
        self._rest = other._rest

    def close(self) -> None:
        self._sock.close()

    def _read(self, deadline: float) -> None:
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            chunk = self._sock.recv(65536)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            chunk = b""
        if not chunk:
            raise ResourceError("the guest is no more: QEMU has ended")
        self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            if match := _ANSWER.match(line.rstrip(b"\r")):
                output = base64.b64decode(match[3]).decode(errors="replace")
                self._answers[int(match[1])] = Result(int(match[2]), output)
