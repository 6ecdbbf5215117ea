"""The right to make network namespaces: this process's own, or that of a user namespace which it enters."""

import errno
import os

from cdna.errors import ResourceError
from cdna.lab import syscalls

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21  # linux/capability.h

HOW = (
    "run as root, or allow user namespaces: sudo sysctl user.max_user_namespaces=10000 "
    "kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 (whichever exist)"
)


def is_privileged() -> bool:
    """Whether this thread may make network namespaces and configure their devices."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return all(effective >> capability & 1 for capability in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


def gain() -> bool:
    """Enters a user namespace, as its root, unless this process is privileged. Returns whether it did so.

    The process keeps its network namespace and its user's rights to files: a tap that was made for the user
    can still be opened. ResourceError: it is not allowed, or this process has several threads already.
    """
    if is_privileged():
        return False
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        if error.errno == errno.EINVAL:  # user_namespaces(7): a multi-threaded caller
            raise ResourceError(
                "no right to make network namespaces, and too late to enter a user namespace: this process "
                "has threads; call cdna.lab.privilege.gain() first of all, or run as root"
            ) from None
        raise _refused(error) from None
    try:
        for name, text in (
            ("setgroups", "deny"),  # the kernel wants it so before a user maps a group
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise _refused(error) from None
    if not is_privileged():  # a security module lets it in and takes the capabilities away
        raise _refused(PermissionError(errno.EPERM, os.strerror(errno.EPERM)))
    return True


def gain_fd() -> int | None:
    """As `gain`; a descriptor of the user namespace that was entered, or None."""
    return os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC) if gain() else None


def _refused(error: OSError) -> ResourceError:
    return ResourceError(f"no right to make network namespaces ({(error.strerror or '').lower()}); {HOW}")
