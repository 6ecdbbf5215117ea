"""Runs a program inside a guest: in its network namespace, with a mount namespace in which names resolve."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from typing import NoReturn

from cdna.errors import ResourceError
from cdna.lab import syscalls
from cdna.lab.control import ControlClient

PLACE = "/tmp"  # covered for a moment by a file system of our own, in this mount namespace alone


def run_inside(path: str | None, guest: str, command: Sequence[str]) -> NoReturn:
    """Becomes `command`, inside a guest of the lab at `path`. Errors: CdnaError, before anything has run.

    The process stays the same one, so terminal, signals and exit status are the program's. It has to be
    single-threaded.
    """
    try:
        directory = os.getcwd()
    except OSError as error:
        raise ResourceError(f"the current directory: {error.strerror}; change to one that is there") from None
    with ControlClient(path) as lab:
        reply, fds = lab.call("enter", guest=guest)
        if len(fds) > 1:
            _enter(fds[1], syscalls.CLONE_NEWUSER, guest)
        _enter(fds[0], syscalls.CLONE_NEWNET, guest)
        for fd in fds:
            os.close(fd)
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
            syscalls.sethostname(reply["guest"])
            hosts = _cover_hosts(reply["hosts"])
            os.chdir(directory)
        except OSError as error:
            raise ResourceError(
                f"guest {guest}: no mount namespace: {error.strerror}; run as the lab's user"
            ) from None
        if hosts is not None:
            lab.call("keep", send_fds=(hosts,))
            os.close(hosts)
    _become(list(command))


def _enter(fd: int, kind: int, guest: str) -> None:
    try:
        syscalls.setns(fd, kind)
    except OSError as error:
        raise ResourceError(
            f"guest {guest}: cannot enter its namespace: {error.strerror}; run as the lab's user"
        ) from None


def _cover_hosts(text: str) -> int | None:
    """Puts a file over /etc/hosts, for this mount namespace alone, and returns a descriptor of it."""
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    if not os.path.exists("/etc/hosts"):  # there is nothing to put it over
        return None
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("cdna", PLACE, "tmpfs", flags, "size=1m,mode=755")
    name = os.path.join(PLACE, "hosts")
    hosts = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.write(hosts, text.encode())
    syscalls.mount(name, "/etc/hosts", None, syscalls.MS_BIND)
    syscalls.umount(PLACE)
    return hosts


def _become(command: list[str]) -> NoReturn:
    program = command[0]
    try:
        os.execvp(program, command)
    except OSError as error:
        if error.errno == errno.ENOENT and not shutil.which(program):
            raise ResourceError(f"{program}: no such program; give one of the path, or a file") from None
        reason = (error.strerror or "").lower()
        raise ResourceError(f"{program}: {reason}; give a program that can be run") from None
    except ValueError as error:  # a zero byte
        raise ResourceError(f"{program!r}: {error}; give a program that can be run") from None
