"""What is known of a guest at a vhost-user socket: `cdna ctl show` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdna.abi import ContextState
from cdna.protocol.features import names
from cdna.protocol.vhost_user import ProtocolFeature
from cdna.virtio import Feature

if TYPE_CHECKING:
    from cdna.vmm.vhost_user.backend import Backend
    from cdna.vmm.vhost_user.guest import VhostUserGuest


def describe(guest: VhostUserGuest, backend: Backend | None, mode: str, closing: int) -> dict[str, Any]:
    """As `VhostUserGuest.describe` has it.

    backend: None without a frontend. mode: of the endpoint. closing: descriptors of frontends before.
    """
    told: dict[str, Any] = {
        "name": guest.name,
        "path": guest.path,
        "mode": mode,
        "state": _state(guest, backend),
        "link": guest.link_up,
        "pairs": guest.pairs,
        "mtu": guest.mtu,
        "memory": guest.lent.most or None,
        "mapped": guest.device.memory.held,
        "memory_refused": guest.lent.refused,
        "inflight_areas": guest.areas.made,
        "descriptors": _descriptors(guest, backend),
        "closing": closing,
        "last_error": guest.last_error,
        "offered": names(guest.features, Feature),
        "peer": None,
        "uid": None,
        "features": [],
        "protocol_features": [],
        "queues": [],
        "control": None,
    }
    if backend is not None:
        told["peer"] = backend.connection.pid
        told["uid"] = backend.connection.uid
        told["features"] = names(backend.rings.features, Feature)
        told["protocol_features"] = names(backend.protocol, ProtocolFeature)
        told["queues"] = [guest.device.info(queue) for queue in range(guest.device.queues)]
        if guest.control is not None and guest.control.ready:
            net = guest.control.net
            told["control"] = {"commands": net.commands, "refused": net.refused}
    return told


def _state(guest: VhostUserGuest, backend: Backend | None) -> str:
    if guest.context.state == ContextState.CONTEXT_FAULTED:
        return "faulted"
    if backend is not None:
        return "running" if backend.rings.any_running else "connected"
    return "waiting" if guest.link_up else "link down"


def _descriptors(guest: VhostUserGuest, backend: Backend | None) -> int:
    """How many of the frontend's the server holds now."""
    held = guest.device.descriptors + (guest.control.descriptors if guest.control is not None else 0)
    return held + (backend.descriptors + backend.connection.descriptors if backend is not None else 0)
