"""A guest behind a vhost-user socket: a QEMU machine with virtio-net, or a DPDK program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdna.errors import ConfigError
from cdna.lab.kinds.base import Member, Shared
from cdna.lab.kinds.vhost_user import VhostUserPlan
from cdna.protocol.features import offer

if TYPE_CHECKING:
    from cdna.vmm.domain import Context


class VhostUserMember(Member[VhostUserPlan]):
    def __init__(self, shared: Shared, plan: VhostUserPlan) -> None:
        super().__init__(shared, plan)
        self.guest = shared.vhost.add(
            plan.name,
            plan.path,
            settings=self.settings(
                all_multicast=True,  # QEMU keeps the control queue: which groups were joined is not told
            ),
            client=plan.client,
            pairs=plan.queues,
            mtu=plan.mtu,
            memory=plan.memory,
            features=offered(plan),
            uids=plan.users,
        )

    @property
    def context(self) -> Context:
        context: Context = self.guest.context
        return context

    def describe(self) -> dict[str, Any]:
        told = self.guest.describe()
        return {
            **super().describe(),
            "socket": self.plan.path,
            "mode": "client" if self.plan.client else "server",
            "queues": self.plan.queues,
            "packed": self.plan.packed,
            "connected": bool(self.guest.connected),
            "peer": told["peer"],
            "frontend": told["state"],
            "last_error": told["last_error"],
            "memory": self.plan.memory,
            "mapped": told["mapped"],
            "memory_refused": told["memory_refused"],
        }

    def detail(self) -> dict[str, Any]:
        told = self.guest.describe()
        return {
            **super().detail(),
            "offered": told["offered"],
            "features": told["features"],
            "protocol_features": told["protocol_features"],
            "rings": told["queues"],
            "descriptors": told["descriptors"],
            "closing": told["closing"],
            "inflight_areas": told["inflight_areas"],
        }

    def change(self, plan: VhostUserPlan, given: set[str]) -> None:
        if "memory" not in given:
            return super().change(plan, given)
        before = self.plan.memory
        self.guest.set_memory(plan.memory)
        try:
            super().change(plan, given)
        except Exception:
            self.guest.set_memory(before)
            raise

    def set_link(self, up: bool) -> None:
        self.guest.set_link(up)
        self.up = up

    def reset(self) -> None:
        """Ends a fault. A frontend is disconnected, and may come back at once."""
        self.guest.reset()

    def remove(self) -> None:
        self.shared.vhost.remove(self.guest)


def offered(plan: VhostUserPlan) -> int:
    """The features that a frontend may take. ConfigError: its other settings exclude one that is added."""
    given = set(plan.features)
    if plan.queues == 1 and (asked := sorted(given & {"+mq", "+rss"})):
        raise ConfigError(f"guest {plan.name}: features {asked[0]} needs queues=2 or more; give both")
    if not plan.packed:
        if "+ring_packed" in given:
            raise ConfigError(f"guest {plan.name}: packed=off and features +ring_packed: give one of the two")
        given.add("-ring_packed")
    return offer(sorted(given))
