"""QEMU's machine protocol (docs/interop/qmp-spec.txt): a command, its answer, and events in between."""

from __future__ import annotations

import json
import socket
import time
from array import array
from typing import Any

from cdna.errors import ResourceError


class QmpError(ResourceError):
    """QEMU refused a command, or its monitor does not answer."""


class Qmp:
    """The monitor behind a connected socket, which this takes over."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._events: list[dict[str, Any]] = []

    def greet(self, seconds: float) -> None:
        """Waits for QEMU's greeting and leaves the mode in which nothing but this works."""
        self._receive(time.monotonic() + seconds, "its greeting")
        self("qmp_capabilities")

    def __call__(self, command: str, /, seconds: float = 30.0, **arguments: Any) -> Any:
        """What a command returns. An underscore in an argument's name stands for a hyphen."""
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.execute(command, given, seconds)

    def execute(self, command: str, arguments: dict[str, Any], seconds: float = 30.0) -> Any:
        """What a command returns. QmpError: QEMU refuses it, has ended, or takes longer."""
        self._send(command, arguments, ())
        return self._answer(command, seconds)

    def give(self, name: str, fd: int) -> None:
        """Hands QEMU a descriptor, by a name that a later command uses."""
        self._send("getfd", {"fdname": name}, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])
        self._answer("getfd", 30.0)

    def _send(self, command: str, arguments: dict[str, Any], rights: Any) -> None:
        request = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        try:
            self._sock.settimeout(30.0)
            self._sock.sendmsg([request], rights)
        except OSError as error:
            raise QmpError(f"{command}: QEMU has ended ({error.strerror})") from None

    def _answer(self, command: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            answer = self._receive(deadline, f"an answer to {command}")
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")
            self._events.append(answer)

    def wait_event(self, name: str, seconds: float = 30.0, **data: Any) -> dict[str, Any]:
        """The data of the next event of this name that says `data`; it may have come already."""
        deadline = time.monotonic() + seconds
        while True:
            for i, event in enumerate(self._events):
                said = event.get("data", {})
                if event.get("event") == name and data.items() <= said.items():
                    del self._events[: i + 1]
                    return dict(said)
            self._events.append(self._receive(deadline, f"the event {name}"))

    def forget_events(self) -> None:
        """Forgets events that came before now and were not asked for."""
        self._events.clear()

    def close(self) -> None:
        self._sock.close()

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\n" not in self._rest:
            self._sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = self._sock.recv(65536)
            except TimeoutError:
                raise QmpError(f"QEMU's monitor: {what} did not come in time") from None
            except OSError:
                chunk = b""
            if not chunk:
                raise QmpError(f"QEMU has ended before {what}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer
