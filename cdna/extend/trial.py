"""Tries out what only trying tells, and prints an errno (0: works) and the step that failed.

    python -I -S trial.py FILE NAME

calls the function NAME of the Python file FILE. It is a process of its own: namespaces are entered for good,
and all that was made goes away with the process. FILE imports nothing but this module, by its whole name, and
the standard library: the process has one thread (unshare(CLONE_NEWUSER) wants that).
"""

import ctypes
import errno
import fcntl
import os
import runpy
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
IFF_UP = 0x1
NOBODY = 65534

libc = ctypes.CDLL(None, use_errno=True)
_step = ""


@contextmanager
def step(name: str) -> Iterator[None]:
    global _step
    _step = name
    yield


def check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def use_loopback() -> None:
    """Sets the new namespace's loopback device up, which shows that its administrator is us."""
    with step("setting a device up"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def private_network() -> None:
    network_namespace() if os.geteuid() == 0 else user_namespace()


def network_namespace() -> None:
    with step("making a network namespace"):
        check(libc.unshare(CLONE_NEWNET))
    use_loopback()


def user_namespace() -> None:
    """As an ordinary user would, also when this is root."""
    if os.getuid() == 0:
        with step("becoming an ordinary user"):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            check(libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE: /proc/self is ours again
    uid = os.getuid()
    with step("making a user namespace"):
        check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    with step("mapping a user into it"), open("/proc/self/uid_map", "w") as uid_map:
        uid_map.write(f"0 {uid} 1")
    use_loopback()


def main(file: str, name: str) -> None:
    sys.modules["cdna.extend.trial"] = sys.modules["__main__"]
    try:
        functions = globals() if os.path.samefile(file, __file__) else runpy.run_path(file)
        functions[name]()
    except OSError as error:
        print(error.errno or errno.EIO, _step)
    else:
        print(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
