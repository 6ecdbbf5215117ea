"""What the memory cgroup of this process allows and holds.

The limit is memory.max in version 2 and memory.limit_in_bytes in version 1. It holds for a cgroup and all
below it, so it is looked for on the whole path up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cdna.base.closing import Closing

PROC = Path("/proc")
NO_LIMIT = 1 << 60  # bytes; version 1 writes a number above it where there is none


class _Names(NamedTuple):
    """Files of a cgroup; the words in its memory.stat for the page cache, and for shared memory in that."""

    limit: str
    usage: str
    cache: str
    shared: str


_VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem")
_VERSION_2 = _Names("memory.max", "memory.current", "file", "shmem")


class MemoryGroup(Closing):
    """The cgroup with the smallest limit of those that this process is in; where none has one, the machine.

    limit: bytes. The files that `own` and `others` read stay open: a sandbox may forbid to open them later.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self.limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._names: _Names | None = None  # of the cgroup; None: none has a limit
        found: Path | None = None
        for folder, names in _path_up(proc):
            limit = _limit(folder / names.limit)
            if limit < self.limit:
                self.limit, self._names, found = limit, names, folder
        files = [proc / "self" / "statm"]
        if found is not None and self._names is not None:
            files += [found / self._names.usage, found / "memory.stat"]
        self._fds: list[int] = []
        try:
            for file in files:
                self._fds.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def own(self) -> int:
        """Bytes that this process alone has: its heap, not its files and what it shares."""
        _, resident, shared, *_ = self._read(0).split()
        return (int(resident) - int(shared)) * self._page

    def others(self) -> int:
        """Bytes beside those that the cgroup holds and the kernel cannot reclaim; 0: none has a limit."""
        if self._names is None:
            return 0
        stat = {word: int(number) for word, number in map(str.split, self._read(2).splitlines())}
        cache = stat.get(self._names.cache, 0) - stat.get(self._names.shared, 0)
        return max(0, int(self._read(1)) - max(0, cache) - self.own())

    def _read(self, which: int) -> str:
        fd, parts = self._fds[which], []
        os.lseek(fd, 0, os.SEEK_SET)
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _path_up(proc: Path) -> Iterator[tuple[Path, _Names]]:
    """The cgroups of this process that count memory, from its own one up to what is mounted here."""
    groups = [line.split(":", 2) for line in _text(proc / "self" / "cgroup").splitlines()]
    for line in _text(proc / "self" / "mountinfo").splitlines():
        here, _, there = line.partition(" - ")
        root, mounted = here.split()[3:5]
        kind, _, options = there.split(maxsplit=2)
        if kind == "cgroup2":
            names, path = _VERSION_2, _path_of(groups, "")
        elif kind == "cgroup" and "memory" in options.split(","):
            names, path = _VERSION_1, _path_of(groups, "memory")
        else:
            continue
        if path is None:
            continue
        below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        for part in (below, *below.parents):
            yield Path(mounted) / part, names


def _path_of(groups: list[list[str]], controller: str) -> str | None:
    """The path of this process's cgroup in the hierarchy of a controller; "": in that of version 2."""
    return next((path for _, controllers, path in groups if controller in controllers.split(",")), None)


def _limit(file: Path) -> int:
    """Bytes, or NO_LIMIT."""
    word = _text(file).strip()
    return min(int(word), NO_LIMIT) if word.isdigit() else NO_LIMIT


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""
