"""What a server will still have to do: the least that its sandbox leaves it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from cdna.extend.permits import Access, Call, Capability, Permits
from cdna.sandbox.privileges import User

SOCKETS = Access.MAKE_SOCK | Access.REMOVE_FILE | Access.READ_DIR  # listening again, in a directory


@dataclass
class Needs:
    """What a server needs once it serves.

    calls: system calls, beside those that every server makes. allowed: what may be done beneath a path. keep:
    capabilities, of those that there are. abstract: whether it speaks to a socket of the abstract name space.
    user: who it becomes.
    """

    mode: str = "on"
    calls: list[Call] = field(default_factory=list)
    allowed: dict[str, Access] = field(default_factory=dict)
    keep: set[Capability] = field(default_factory=set)
    abstract: bool = False
    user: User | None = None
    listens: list[str] = field(default_factory=list)  # sockets, which are to be the user's

    def allow(self, path: str, access: Access) -> None:
        self.allowed[path] = self.allowed.get(path, Access(0)) | access

    def socket(self, path: str) -> None:
        """A socket at `path`, which it listens on again, and removes."""
        self.listens.append(path)
        self.sockets(os.path.dirname(os.path.abspath(path)))

    def sockets(self, directory: str) -> None:
        """Sockets in a directory."""
        self.allow(directory, SOCKETS)
        uid = os.geteuid() if self.user is None else self.user.uid
        try:
            found = os.stat(directory)
        except FileNotFoundError:
            return
        if found.st_uid != uid and (not found.st_mode & 0o002 or found.st_mode & 0o1000):
            self.keep.add(Capability.CAP_DAC_OVERRIDE)  # somebody else's, such as /run/libvirt

    def add(self, permits: Permits) -> None:
        """Adds what an entry of a registry permits, or one guest."""
        self.calls += permits.calls
        for path, access in permits.paths.items():
            self.allow(path, access)
        self.keep |= permits.keep
        for path in permits.listens:
            self.socket(path)

    def has_room_for(self, permits: Permits) -> bool:
        """Whether the filter has the system calls of an entry that may come later."""
        return set(permits.calls) <= set(self.calls)

    def listens_in(self, directory: str) -> bool:
        """Whether sockets may be made in this directory."""
        above = (Path(path).resolve() for path, access in self.allowed.items() if Access.MAKE_SOCK in access)
        return any(map(Path(directory).resolve().is_relative_to, above))
