"""Guests behind vhost-user sockets: QEMU machines with virtio-net, and DPDK programs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cdna.base import readers
from cdna.base.units import MIB, parse_mebibytes
from cdna.errors import ConfigError
from cdna.extend.permits import Capability, Permits
from cdna.extend.setting import Setting
from cdna.lab import values
from cdna.lab.kinds import CONTEXT, MTU, GuestKind, GuestPlan
from cdna.lab.kinds.vhost_user.checks import kvm, qemu, testpmd

if TYPE_CHECKING:
    from cdna.lab.kinds.base import Shared
    from cdna.lab.kinds.vhost_user.member import VhostUserMember

MAX_QUEUES = 8  # pairs
MAX_MEMORY = 4 << 20  # MiB


@dataclass(frozen=True)
class VhostUserPlan(GuestPlan):
    """A virtual machine or a DPDK program. client: we connect to `path`, and again when it is gone."""

    kind: ClassVar[str] = "vhost-user"

    protection: str = field(default="table", kw_only=True)
    path: str = ""
    client: bool = False
    queues: int = 1  # pairs
    packed: bool = True  # whether packed rings are offered
    memory: int | None = None  # bytes that its frontend may lend; None: it shares what the server can pay for
    features: tuple[str, ...] = ()  # virtio features withheld (-rss) and added (+rss)
    users: tuple[int, ...] = ()  # who may attach beside this process's user and root

    def claims(self) -> Mapping[str, str]:
        return {"socket": self.path}

    def permits(self) -> Permits:
        if self.client:  # the socket is its frontend's
            return Permits(keep=frozenset({Capability.CAP_DAC_OVERRIDE}))
        return Permits(listens=(self.path,))


def _member(shared: Shared, plan: VhostUserPlan) -> VhostUserMember:
    from cdna.lab.kinds.vhost_user.member import VhostUserMember

    return VhostUserMember(shared, plan)


def _state(guest: Mapping[str, Any]) -> str | None:
    """What the frontend makes of the context: waiting, connected, running."""
    return guest.get("frontend")


def _queues(where: str, value: object) -> int:
    return readers.whole(where, value, 1, MAX_QUEUES)


def _client(where: str, value: object) -> bool:
    """Whether we are the socket's client; the frontend listens then."""
    return readers.one_of(where, value, ("server", "client")) == "client"


def _memory(where: str, value: object) -> int | None:
    """Bytes, of a text such as 512M or 4G; 0: what the server can pay for, shared."""
    if value in ("0", 0) and not isinstance(value, bool):
        return None
    mebibytes = parse_mebibytes(value) if isinstance(value, str) else None
    if mebibytes is None or mebibytes > MAX_MEMORY:
        raise readers.bad(where, value, "give a size such as 512M or 4G, at most 4T, or 0 to share")
    return mebibytes * MIB


def _features(where: str, value: object) -> tuple[str, ...]:
    """Virtio features to withhold (-rss) and to add (+rss)."""
    from cdna.protocol.features import offer  # compiled modules, which plans do without otherwise

    given = tuple(word.lower() for word in readers.words(where, value))
    try:
        offer(given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return given


def _uids(where: str, users: object) -> list[str]:
    """Numbers of users: the server, in its sandbox, has no file to look them up in."""
    return [str(uid) for uid in values.users(where, users)]


KIND = GuestKind(
    "vhost-user",
    VhostUserPlan,
    (
        *CONTEXT,
        Setting("path", values.socket_path, local=lambda where, path: os.path.abspath(path)),
        Setting("mode", _client, field="client"),
        Setting("queues", _queues),
        MTU,
        Setting("packed", readers.switch),
        Setting("memory", _memory, live=True),
        Setting("features", _features, several=True),
        Setting("user", values.users, field="users", several=True, local=_uids),
    ),
    _member,
    target="path",
    # Its socket and connection, three of each ring, those of a memory table while it is taken over.
    descriptors=160,
    permits=lambda: Permits(modules=("cdna.lab.kinds.vhost_user.member", "cdna.vmm.vhost_user")),
    gauges={
        "connected": "Whether a frontend is connected.",
        "mapped": "Bytes of its memory files that the server maps.",
        "memory_refused": "Mappings of its memory files that were refused, as they were too much.",
    },
    state=_state,
    checks={"programs": (kvm, qemu, testpmd)},
)
