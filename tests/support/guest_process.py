"""A guest in a process of its own that does what a test tells it, however hostile.

    guest = GuestProcess(path)      # the process runs, and knows the path of the VMM's socket
    guest.run("attach()")           # connects and maps: `driver`, `geometry`, and the raw descriptors
    sent = guest.run("result = driver.send([frame])", frame=frame)

The code runs in one namespace, one snippet after the other; values go there and come back as literals.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from cdna import abi
from cdna.guest_driver import remote
from cdna.protocol.hypercall import Hypercall

ROOT = Path(__file__).parents[2]
NOBODY = 65534


class GuestEnded(Exception):
    """The process has ended; the argument is its status, minus the number of the signal that killed it."""


class GuestProcess:
    """The process, as the test holds it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, os.fspath(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        )
        assert self._answer() == "ready"

    def start(self, code: str, **values: object) -> None:
        """Has it run `code`, and does not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(repr((code, values)) + "\n")
        self.process.stdin.flush()

    def run(self, code: str, **values: object) -> Any:
        """What `code` set `result` to. RuntimeError: it raised what it did not catch. GuestEnded."""
        self.start(code, **values)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise GuestEnded(self.process.wait())
        failed, result = ast.literal_eval(line)
        if failed:
            raise RuntimeError(f"in the guest:\n{result}")
        return result

    def kill(self) -> None:
        """SIGKILL; when this returns, its descriptors are closed."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> int:
        """Ends it the polite way, if it still runs: its exit status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        status = self.process.wait()
        self.process.stdout.close()
        return status


# --- in the guest -------------------------------------------------------------------------------------------


def _namespace(path: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    original = remote._attach

    def keep_descriptors(sock: socket.socket, request: dict[str, Any]) -> Any:
        geometry, fds = original(sock, request)
        names = ("memory_fd", "page_fd", "rings_fd", "event_fd")
        space.update(zip(names, map(os.dup, fds), strict=True), geometry=geometry, sock=sock)
        return geometry, fds

    remote._attach = keep_descriptors

    def attach(name: str = "guest", **settings: Any) -> None:
        space["driver"] = remote.RemoteDriver(path, name=name, **settings)

    def attach_bare(name: str = "guest", memory: int = 1 << 20, **settings: Any) -> None:
        """Asks for a guest and maps nothing: no driver posts anything. The geometry and the descriptors."""
        request = {"version": 1, "name": name, "memory": memory, "settings": settings}
        for fd in keep_descriptors(connect(), request)[1]:
            os.close(fd)

    def connect() -> socket.socket:
        sock = space["sock"] = remote._connect(path)
        return sock

    def tries(action: Any, *args: Any) -> str:
        """The name of the error number that an action fails with, or "done"."""
        try:
            action(*args)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "done"

    def map_file(fd: int, size: int, offset: int = 0, writable: bool = True) -> Any:
        """mmap as the kernel has it, without the checks of the module; the bytes. OSError."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        at = libc.mmap(None, ctypes.c_size_t(size), prot, mmap.MAP_SHARED, fd, ctypes.c_long(offset))
        if at == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        return (ctypes.c_ubyte * size).from_address(at)

    def hypercall(op: int, entries: bytes = b"", *, n: int = 0, ring: int = 0) -> int:
        """Any hypercall at all, by hand; the status."""
        sock = space["sock"]
        sock.send(struct.pack("<HHIQ", op, ring, n, 0) + entries)
        return int(struct.unpack("<iIII", sock.recv(65536))[0])

    space.update({member.name: int(member) for member in Hypercall}, NOBODY=NOBODY, path=path)
    for tool in (attach, attach_bare, connect, tries, map_file, hypercall):
        space[tool.__name__] = tool
    for module in (abi, ctypes, fcntl, json, mmap, np, os, random, socket, struct):
        space[module.__name__.rpartition(".")[2]] = module
    space["np"] = np
    return space


def main() -> None:
    space = _namespace(sys.argv[1])
    print((False, "ready"), flush=True)
    for line in sys.stdin:
        code, values = ast.literal_eval(line)
        space.update(values, result=None)
        try:
            exec(compile(code, "<test>", "exec"), space)
        except Exception:
            print((True, traceback.format_exc()), flush=True)
        else:
            print((False, space["result"]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
