"""What a server will still have to do, from its plan: the least that its sandbox leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cdna.errors import ConfigError
from cdna.lab.guest_plans import NAMESPACE, GuestPlan, VhostUserPlan
from cdna.sandbox import calls
from cdna.sandbox.landlock import Access
from cdna.sandbox.privileges import Capability, User

if TYPE_CHECKING:
    from cdna.lab.plan import LabPlan

TUN = "/dev/net/tun"
SOCKETS = Access.MAKE_SOCK | Access.REMOVE_FILE | Access.READ_DIR  # listening again, in a directory
# Of the network namespace of the thread that looks. Landlock goes by inode, and all below, such as ipv4/conf,
# are other inodes in another namespace: no narrower rule holds in a guest's.
SYSCTLS = "/proc/sys/net"
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV
NEW_FILE = Access.MAKE_REG | Access.REMOVE_FILE | Access.READ_FILE | Access.WRITE_FILE


@dataclass
class Needs:
    """What a server needs once it serves.

    parts: of the list of system calls. allowed: what may be done beneath a path. keep: capabilities, of those
    that there are. abstract: whether it speaks to a socket of the abstract name space. user: who it becomes.
    """

    mode: str = "on"
    parts: set[str] = field(default_factory=lambda: {calls.ALWAYS})
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

    def check(self, plan: GuestPlan) -> None:
        """ConfigError: a guest that comes later, for which there is no room in the sandbox."""
        if plan.kind == NAMESPACE and calls.NAMESPACES not in self.parts:
            raise ConfigError(
                f"guest {plan.name}: a namespace, for which this server's sandbox has no room; start it with "
                "one, or with --sandbox off"
            )
        if isinstance(plan, VhostUserPlan) and not plan.client:
            directory = os.path.dirname(plan.path)
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
    kind = plan.wire.partition(":")[0]
    if kind == "tap":
        needs.parts.add(calls.TAP)
    if kind == "packet":
        needs.parts.add(calls.PACKET)
    if any(guest.kind == NAMESPACE for guest in plan.guests):
        needs.parts.add(calls.NAMESPACES)
        needs.keep |= {Capability.CAP_SYS_ADMIN, Capability.CAP_NET_ADMIN}
        needs.allow(SYSCTLS, Access.WRITE_FILE)
    if kind == "tap" or calls.NAMESPACES in needs.parts:
        needs.allow(TUN, DEVICE)
        needs.keep.add(Capability.CAP_NET_ADMIN)
    for guest in plan.guests:
        if isinstance(guest, VhostUserPlan):
            if guest.client:
                needs.keep.add(Capability.CAP_DAC_OVERRIDE)  # the socket is its frontend's
            else:
                needs.socket(guest.path)
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
