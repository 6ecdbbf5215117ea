"""Runs a program inside a guest: in its network namespace, with a mount namespace in which names resolve."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from cdna.errors import ResourceError
from cdna.lab import resolver, syscalls, sysfs
from cdna.lab.control import ControlClient

# Directories that may be covered for a moment by a file system of our own, in this mount namespace alone.
PLACES = ("/tmp", "/run", "/mnt", "/var", "/usr", "/dev")
HOSTS = "/etc/hosts"


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
        hosts = _furnish(guest, reply)
        try:
            os.chdir(directory)
        except OSError as error:
            raise ResourceError(
                f"{directory}: {_why(error)} in the guest's mount namespace; change to another directory"
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


def _furnish(guest: str, reply: Mapping[str, Any]) -> int | None:
    """Makes a mount namespace with files of the guest's own. Returns a descriptor of its hosts file."""
    with _explained(guest, "no mount namespace", "run as the lab's user, with CAP_SYS_ADMIN in a container"):
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
        syscalls.sethostname(reply["guest"])
    try:
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        advice = "run as the lab's user"
        if error.errno == errno.EINVAL:
            advice = "it is no mount point, as in a chroot: run mount --bind DIR DIR before chroot DIR"
        raise ResourceError(f"guest {guest}: /: {_why(error)}; {advice}") from None
    texts = {HOSTS: reply["hosts"]}
    files = resolver.own_files(reply["guest"])
    if reply.get("dns"):
        texts[resolver.RESOLV_CONF] = resolver.resolv_text(reply["dns"])
        files.pop(resolver.RESOLV_CONF, None)
        if not os.path.exists(resolver.RESOLV_CONF):
            print("cdna exec: dns=: there is no /etc/resolv.conf to put it over", file=sys.stderr)
    elif resolver.RESOLV_CONF not in files and (upstream := resolver.upstream()) is not None:
        files[resolver.RESOLV_CONF] = upstream
    for target, source in files.items():
        if os.path.exists(target):
            with _explained(guest, f"{source} cannot be put over {target}", "see what the file is"):
                syscalls.mount(source, target, None, syscalls.MS_BIND)
    with _explained(guest, "no files of its own", "run as the lab's user"):
        hosts = _cover(texts)
    if (place := _place([sysfs.SYS])) is not None:
        sysfs.renew(place)
    return hosts


@contextlib.contextmanager
def _explained(guest: str, what: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(f"guest {guest}: {what}: {_why(error)}; {advice}") from None


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _cover(texts: Mapping[str, str]) -> int | None:
    """Puts files over those of the names that exist. Returns a descriptor of the one over HOSTS."""
    targets = {target: os.path.realpath(target) for target in texts if os.path.exists(target)}
    place = _place(list(targets.values()))
    if not targets or place is None:
        return None
    hosts = None
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("cdna", place, "tmpfs", flags, "size=1m,mode=755")
    try:
        for target, path in targets.items():
            name = os.path.join(place, os.path.basename(target))
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.write(file, texts[target].encode())
            syscalls.mount(name, path, None, syscalls.MS_BIND)
            if target == HOSTS:
                hosts = file
            else:
                os.close(file)
    finally:
        syscalls.umount(place)
    return hosts


def _place(targets: Sequence[str]) -> str | None:
    """A directory that may be covered for a moment: none of the targets lies in it."""
    for place in PLACES:
        if os.path.isdir(place) and not any(target.startswith(place + "/") for target in targets):
            return place
    return None


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
