"""What the features that a driver accepted mean to the NIC."""

from __future__ import annotations

from cdna.abi import Takes
from cdna.virtio import Feature

_TAKES = (
    (Feature.VIRTIO_NET_F_GUEST_TSO4, Takes.TAKES_TSO4),
    (Feature.VIRTIO_NET_F_GUEST_TSO6, Takes.TAKES_TSO6),
    (Feature.VIRTIO_NET_F_GUEST_ECN, Takes.TAKES_ECN),
    (Feature.VIRTIO_NET_F_GUEST_UFO, Takes.TAKES_UFO),
    (Feature.VIRTIO_NET_F_GUEST_USO4, Takes.TAKES_USO4),
    (Feature.VIRTIO_NET_F_GUEST_USO6, Takes.TAKES_USO6),
)

GUEST_OFFLOADS = 1 << Feature.VIRTIO_NET_F_GUEST_CSUM | sum(1 << feature for feature, _ in _TAKES)


def takes_of(offloads: int) -> int:
    """What a driver with these offloads does itself, as a sum of Takes: nothing without GUEST_CSUM."""
    if not offloads >> Feature.VIRTIO_NET_F_GUEST_CSUM & 1:
        return 0
    return Takes.TAKES_CSUM | sum(bit for feature, bit in _TAKES if offloads >> feature & 1)
