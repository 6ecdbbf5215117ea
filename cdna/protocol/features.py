"""What is offered to a frontend: virtio's features and vhost-user's protocol features.

An operator withholds and adds features by name: `offer(("-guest_csum", "+rss"))`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from cdna.errors import ConfigError
from cdna.protocol.vhost_user import ProtocolFeature
from cdna.virtio import Feature


def mask(bits: Iterable[int]) -> int:
    """The word with these bits set."""
    return sum(1 << bit for bit in set(bits))


# VIRTIO_NET_F_MAC is for frontends that have the configuration space from us (User-Mode Linux); QEMU and DPDK
# have addresses of their own and ignore it. No NOTIFY_ON_EMPTY: event indices serve the purpose.
SUPPORTED = mask(
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
        Feature.VIRTIO_NET_F_MAC,
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

# RSS is offered on request only: its limits are in the configuration space. DPDK's frontend takes the feature
# without asking for that space, and fails or not by what its memory holds there.
OFFERED = SUPPORTED & ~mask((Feature.VIRTIO_NET_F_RSS,))

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


# What a feature needs, by virtio 1.2, 5.1.3.1: one of these. A device offers no feature without it (2.2).
_TCP_RECEIVE = (Feature.VIRTIO_NET_F_GUEST_TSO4, Feature.VIRTIO_NET_F_GUEST_TSO6)
_TCP_SEND = (Feature.VIRTIO_NET_F_HOST_TSO4, Feature.VIRTIO_NET_F_HOST_TSO6)
NEEDS: dict[Feature, tuple[Feature, ...]] = {
    Feature.VIRTIO_NET_F_GUEST_TSO4: (Feature.VIRTIO_NET_F_GUEST_CSUM,),
    Feature.VIRTIO_NET_F_GUEST_TSO6: (Feature.VIRTIO_NET_F_GUEST_CSUM,),
    Feature.VIRTIO_NET_F_GUEST_UFO: (Feature.VIRTIO_NET_F_GUEST_CSUM,),
    Feature.VIRTIO_NET_F_GUEST_USO4: (Feature.VIRTIO_NET_F_GUEST_CSUM,),
    Feature.VIRTIO_NET_F_GUEST_USO6: (Feature.VIRTIO_NET_F_GUEST_CSUM,),
    Feature.VIRTIO_NET_F_HOST_TSO4: (Feature.VIRTIO_NET_F_CSUM,),
    Feature.VIRTIO_NET_F_HOST_TSO6: (Feature.VIRTIO_NET_F_CSUM,),
    Feature.VIRTIO_NET_F_HOST_UFO: (Feature.VIRTIO_NET_F_CSUM,),
    Feature.VIRTIO_NET_F_HOST_USO: (Feature.VIRTIO_NET_F_CSUM,),
    Feature.VIRTIO_NET_F_CTRL_RX: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_CTRL_VLAN: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_CTRL_MAC_ADDR: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_GUEST_ANNOUNCE: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_MQ: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_RSS: (Feature.VIRTIO_NET_F_CTRL_VQ,),
    Feature.VIRTIO_NET_F_GUEST_ECN: _TCP_RECEIVE,  # these two last: what they need may need something
    Feature.VIRTIO_NET_F_HOST_ECN: _TCP_SEND,
}


def short(feature: Feature) -> str:
    """A feature as operators name it: guest_csum, of VIRTIO_NET_F_GUEST_CSUM."""
    return feature.name.partition("_F_")[2].lower()


BY_NAME = {short(feature): feature for feature in Feature if SUPPORTED >> feature & 1}


def offer(words: Iterable[str], offered: int = OFFERED) -> int:
    """The features offered after each "-name" is withheld and each "+name" is added.

    Whatever needs a feature that is withheld is withheld as well. ConfigError, in one line without the words'
    origin: an unknown name, a name given twice, an added feature that needs a withheld one.
    """
    given: dict[Feature, str] = {}
    for word in words:
        sign, name = word[:1], word[1:]
        if sign not in ("+", "-") or name not in BY_NAME:
            raise ConfigError(f"{word[:40]!r}: give -NAME or +NAME of {', '.join(sorted(BY_NAME))}")
        if BY_NAME[name] in given:
            raise ConfigError(f"{name} is given twice; give it once")
        given[BY_NAME[name]] = sign
    for feature, sign in given.items():
        offered = offered & ~(1 << feature) | (sign == "+") << feature
    for feature, needs in NEEDS.items():
        if offered >> feature & 1 and not offered & mask(needs):
            if given.get(feature) == "+":
                needed = " or ".join(map(short, needs))
                raise ConfigError(f"+{short(feature)} needs {needed}, which is not offered; leave one out")
            offered &= ~(1 << feature)
    return offered


def names(bits: int, kind: type[IntEnum]) -> list[str]:
    """The bits of a word by name, those without one as "bit 12"."""
    known = {int(member): member.name for member in kind}
    return [known.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1]


def check_offer(features: int, protocol: int) -> None:
    """ConfigError: more than this NIC can do."""
    if surplus := features & ~SUPPORTED:
        raise ConfigError(f"features {', '.join(names(surplus, Feature))}: not of this NIC; leave them out")
    if surplus := protocol & ~OFFERED_PROTOCOL:
        raise ConfigError(
            f"protocol features {', '.join(names(surplus, ProtocolFeature))}: not of this NIC; leave them out"
        )
