"""/sys of the network namespace that this process has entered, in its own mount namespace.

The file system shows the devices of the namespace in which it was mounted; so it is mounted anew, and what
was mounted below it (cgroup, debugfs, ...) is put back.
"""

from __future__ import annotations

import contextlib
import os

from cdna.lab import syscalls

SYS = "/sys"


def renew(place: str) -> None:
    """Mounts /sys anew. Where that is forbidden, as in some containers, /sys stays the host's.

    place: a directory that may be covered for a moment.
    """
    below = _mounts_below(SYS)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    try:
        read_only = os.statvfs(SYS).f_flag & os.ST_RDONLY
        syscalls.mount(SYS, place, None, syscalls.MS_BIND | syscalls.MS_REC)
    except OSError:
        return
    try:
        syscalls.mount("sysfs", SYS, "sysfs", flags | (syscalls.MS_RDONLY if read_only else 0))
    except OSError:
        below = []
    for path in below:
        with contextlib.suppress(OSError):
            syscalls.mount(place + path.removeprefix(SYS), path, None, syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.umount(place)


def _mounts_below(directory: str) -> list[str]:
    """Mount points below a directory, without those that lie below another of them."""
    found: list[str] = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split(" ")[4] for line in file]
    except OSError:
        return found
    for point in sorted(set(points)):
        if point.startswith(directory + "/") and not any(point.startswith(f"{f}/") for f in found):
            found.append(point)
    return found
