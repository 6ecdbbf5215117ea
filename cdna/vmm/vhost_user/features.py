"""What is offered to a frontend: virtio's features and vhost-user's protocol features."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from cdna.errors import ConfigError
from cdna.virtio import Feature
from cdna.vmm.vhost_user.messages import ProtocolFeature


def mask(bits: Iterable[int]) -> int:
    """The word with these bits set."""
    return sum(1 << bit for bit in set(bits))


# No VIRTIO_NET_F_MAC: frontends offer it themselves. No NOTIFY_ON_EMPTY: event indices serve the purpose.
OFFERED = mask(
    (
        Feature.VIRTIO_F_VERSION_1,
        Feature.VIRTIO_F_RING_PACKED,
        Feature.VIRTIO_F_IN_ORDER,
        Feature.VIRTIO_F_ANY_LAYOUT,
        Feature.VIRTIO_F_INDIRECT_DESC,
        Feature.VIRTIO_F_EVENT_IDX,
        Feature.VIRTIO_NET_F_MRG_RXBUF,
        Feature.VIRTIO_NET_F_CSUM,
        Feature.VIRTIO_NET_F_HOST_TSO4,
        Feature.VIRTIO_NET_F_HOST_TSO6,
        Feature.VIRTIO_NET_F_HOST_ECN,
        Feature.VIRTIO_NET_F_HOST_UFO,
        Feature.VIRTIO_NET_F_HOST_USO,
        Feature.VIRTIO_NET_F_GUEST_CSUM,
        Feature.VIRTIO_NET_F_GUEST_TSO4,
        Feature.VIRTIO_NET_F_GUEST_TSO6,
        Feature.VIRTIO_NET_F_GUEST_ECN,
        Feature.VIRTIO_NET_F_GUEST_UFO,
        Feature.VIRTIO_NET_F_GUEST_USO4,
        Feature.VIRTIO_NET_F_GUEST_USO6,
        Feature.VIRTIO_NET_F_MTU,
        Feature.VIRTIO_NET_F_STATUS,
        Feature.VIRTIO_NET_F_MQ,
        Feature.VIRTIO_NET_F_RSS,
        Feature.VIRTIO_NET_F_CTRL_VQ,
        Feature.VIRTIO_NET_F_CTRL_RX,
        Feature.VIRTIO_NET_F_CTRL_VLAN,
        Feature.VIRTIO_NET_F_CTRL_MAC_ADDR,
        Feature.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        Feature.VIRTIO_NET_F_GUEST_ANNOUNCE,
        Feature.VHOST_F_LOG_ALL,
        Feature.VHOST_USER_F_PROTOCOL_FEATURES,
    )
)

OFFERED_PROTOCOL = mask(
    (
        ProtocolFeature.MQ,
        ProtocolFeature.LOG_SHMFD,
        ProtocolFeature.RARP,
        ProtocolFeature.REPLY_ACK,
        ProtocolFeature.NET_MTU,
        ProtocolFeature.BACKEND_REQ,
        ProtocolFeature.CONFIG,
        ProtocolFeature.INFLIGHT_SHMFD,
        ProtocolFeature.RESET_DEVICE,
        ProtocolFeature.CONFIGURE_MEM_SLOTS,
        ProtocolFeature.STATUS,
    )
)

LOG_ALL = 1 << Feature.VHOST_F_LOG_ALL
PACKED = 1 << Feature.VIRTIO_F_RING_PACKED
CTRL_VQ = 1 << Feature.VIRTIO_NET_F_CTRL_VQ
PAIRS = 1 << Feature.VIRTIO_NET_F_MQ | 1 << Feature.VIRTIO_NET_F_RSS  # there is more than one pair with these
PROTOCOL_FEATURES = 1 << Feature.VHOST_USER_F_PROTOCOL_FEATURES


def names(bits: int, kind: type[IntEnum]) -> list[str]:
    """The bits of a word by name, those without one as "bit 12"."""
    known = {int(member): member.name for member in kind}
    return [known.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1]


def check_offer(features: int, protocol: int) -> None:
    """ConfigError: more than this NIC can do."""
    if surplus := features & ~OFFERED:
        raise ConfigError(f"features {', '.join(names(surplus, Feature))}: not of this NIC; leave them out")
    if surplus := protocol & ~OFFERED_PROTOCOL:
        raise ConfigError(
            f"protocol features {', '.join(names(surplus, ProtocolFeature))}: not of this NIC; leave them out"
        )
