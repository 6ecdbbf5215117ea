"""What a server will still have to do, from its plan: the least that its sandbox leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cdna.errors import ConfigError
from cdna.extend.permits import Access, Capability, Part, Permits
from cdna.lab.kinds import GuestPlan, kind_of, kinds_of
from cdna.nic.wires import named_wire
from cdna.sandbox.privileges import User

if TYPE_CHECKING:
    from cdna.lab.plan import LabPlan

SOCKETS = Access.MAKE_SOCK | Access.REMOVE_FILE | Access.READ_DIR  # listening again, in a directory
NEW_FILE = Access.MAKE_REG | Access.REMOVE_FILE | Access.READ_FILE | Access.WRITE_FILE


@dataclass
class Needs:
    """What a server needs once it serves.

    parts: entries of registries, whose system calls and modules it needs. allowed: what may be done beneath a
    path. keep: capabilities, of those that there are. abstract: whether it speaks to a socket of the abstract
    name space. user: who it becomes.
    """

    mode: str = "on"
    parts: set[str] = field(default_factory=set)
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
        """What a wire, a kind of guest or a guest permits."""
        for path, access in permits.paths.items():
            self.allow(path, access)
        self.keep |= permits.keep
        for path in permits.listens:
            self.socket(path)

    def check(self, plan: GuestPlan) -> None:
        """ConfigError: a guest that comes later, for which there is no room in the sandbox."""
        kind = kind_of(plan)
        if kind.part not in self.parts and kind.permits().calls:
            raise ConfigError(
                f"guest {plan.name}: a {kind.name}, for which this server's sandbox has no room; start it "
                "with one, or with --sandbox off"
            )
        for directory in map(os.path.dirname, plan.permits().listens):
            if not any(self._covers(path, directory) for path in self.allowed):
                raise ConfigError(
                    f"guest {plan.name}: {directory} is outside this server's sandbox; give a socket beside "
                    "the others, or start it with --sandbox-path or --sandbox off"
                )

    def _covers(self, path: str, directory: str) -> bool:
        return bool(self.allowed[path] & Access.MAKE_SOCK) and Path(directory).resolve().is_relative_to(
            Path(path).resolve()
        )


def needs_of(
    plan: LabPlan,
    socket: str,
    *,
    user: User | None = None,
    json_to: Path | None = None,
    paths: Iterable[str] = (),
    own_directory: bool = False,
) -> Needs:
    """What `plan` needs. socket: the control socket; own_directory: whose directory goes with it.

    paths: directories for sockets of guests to come.
    """
    needs = Needs(mode=plan.sandbox, user=user)
    wire, _ = named_wire(plan.wire)
    entries: list[Part] = [wire, *kinds_of(plan.guests)]
    for entry in entries:
        needs.parts.add(entry.part)
        needs.add(entry.permits())
    for guest in plan.guests:
        needs.add(guest.permits())
    needs.socket(socket)
    if own_directory:
        needs.allow(os.path.dirname(os.path.dirname(socket)), Access.REMOVE_DIR)
    for path in paths:
        needs.sockets(os.path.abspath(path))
    if plan.metrics is not None and "/" in plan.metrics:
        needs.socket(plan.metrics)
    if json_to is not None:
        regular = json_to.is_file() or not json_to.exists()
        needs.allow(str(json_to.parent if regular else json_to), NEW_FILE)
    needs.abstract = os.environ.get("NOTIFY_SOCKET", "").startswith("@")
    return needs
