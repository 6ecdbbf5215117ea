"""The settings of a context that can change while it runs, as `Nic.set_option` applies them.

Each function sets one of them; the engine stands still meanwhile.
"""
# build: control

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport MAX_TSO_FRAME
from cdna.cpu cimport cycles
from cdna.nic.bits cimport clear_bit, set_bit
from cdna.nic.context cimport (
    LIMIT_FLOOD, LIMIT_STORM, MEMORY_GUEST_TABLE, MULTICAST_FILTERS, NO_LIMIT, context_t, frame_bucket_t,
)
from cdna.nic.device cimport Nic
from cdna.nic.wire cimport cycles_per_second

from cdna.base.units import MAX_MTU, MAX_VLAN, MAX_WEIGHT, MIN_MTU, TRUNK, VLAN_ADVICE, VLAN_TRUNK
from cdna.errors import ConfigError
from cdna.nic.limits import check_coalesce, check_takes

__all__ = ["MAX_MULTICAST", "OPTIONS", "STORM_BURST"]

cdef enum:
    ETHERNET_HEADER = 14

STORM_BURST = 8             # frames at once, at least
STORM_BURST_S = 0.1         # seconds' worth of them

MAX_MULTICAST = <int>MULTICAST_FILTERS      # exact addresses of one context


def mac(Nic nic, uint32_t index, value):
    nic._check_mac(value, nic.c.context[index].vlan, index, nic.c.context[index].memory == MEMORY_GUEST_TABLE)
    nic.c.context[index].mac = int.from_bytes(value, "little")
    nic._rebuild_mac_table()


def vlan(Nic nic, uint32_t index, value):
    if not (0 <= value <= MAX_VLAN or value == VLAN_TRUNK):
        raise ConfigError(f"VLAN {value}: {VLAN_ADVICE.format(repr(TRUNK))}")
    cdef context_t *context = &nic.c.context[index]
    if context.vlan == value:
        return
    nic._check_mac(int(context.mac).to_bytes(6, "little"), value, index, context.memory == MEMORY_GUEST_TABLE)
    nic._forget_learned(index)
    context.vlan = value
    nic._rebuild_mac_table()


def anti_spoof(Nic nic, uint32_t index, value):
    """Off, the guest may send other source addresses than its own, and gets the frames for them."""
    if value:
        nic._forget_learned(index)
    nic.c.context[index].anti_spoof = bool(value)


def mtu(Nic nic, uint32_t index, value):
    """Bytes of a packet behind the Ethernet header and its tags; 0: as many as the NIC carries."""
    if value and not MIN_MTU <= value <= MAX_MTU:
        raise ConfigError(f"MTU {value}: give {MIN_MTU} to {MAX_MTU}, or 0 for no limit")
    nic.c.context[index].longest = value + ETHERNET_HEADER if value else NO_LIMIT


def promiscuous(Nic nic, uint32_t index, value):
    nic.c.n_promiscuous += bool(value) - nic.c.context[index].promiscuous
    nic.c.context[index].promiscuous = bool(value)
    if value:
        set_bit(nic.c.promiscuous, index)
    else:
        clear_bit(nic.c.promiscuous, index)


def all_multicast(Nic nic, uint32_t index, value):
    nic.c.context[index].all_multicast = bool(value)


def multicast(Nic nic, uint32_t index, value):
    if len(value) > MULTICAST_FILTERS:
        raise ConfigError(f"{len(value)} multicast addresses: a context has {<int>MULTICAST_FILTERS} "
                          f"filters; set all_multicast for more")
    for address in value:
        if len(address) != 6 or not address[0] & 1:
            raise ConfigError(f"multicast address {address.hex(':')}: give six bytes, the first one odd")
    for i, address in enumerate(value):
        nic.c.context[index].multicast[<int>i] = int.from_bytes(address, "little")
    nic.c.context[index].multicast_filters = len(value)


def weight(Nic nic, uint32_t index, value):
    if not 1 <= value <= MAX_WEIGHT:
        raise ConfigError(f"weight {value}: give 1 to {MAX_WEIGHT}")
    nic.c.context[index].weight = value


def coalesce(Nic nic, uint32_t index, value):
    """(descriptors, microseconds): report completions after so many, or so long after the first one."""
    frames, us = check_coalesce(value)
    nic.c.context[index].coalesce_frames = frames
    nic.c.context[index].coalesce_cycles = <uint64_t>(us * 1e-6 * cycles_per_second())


def rate(Nic nic, uint32_t index, value):
    """Bits a second on the wire's payload; None or 0: no limit. The bucket holds two milliseconds."""
    cdef context_t *context = &nic.c.context[index]
    rate = value or 0
    if rate < 0 or 0 < rate < 8000:
        raise ConfigError(f"rate {rate} bit/s: give at least 8000, or 0 for no limit")
    context.rate_limited = rate > 0
    context.tokens_per_cycle = rate / 8 / cycles_per_second()
    context.tokens_max = max(rate / 8 * 0.002, <int>MAX_TSO_FRAME)
    context.tokens = 0
    context.tokens_at = cycles()


cdef _limit_frames(context_t *context, int which, frame_bucket_t *bucket, value):
    """Frames a second; 0: no limit. The bucket is full at first, and holds what passes at once."""
    context.flood_limits &= ~which
    if value:
        context.flood_limits |= which
        bucket.frames_per_cycle = value / cycles_per_second()
        bucket.frames_max = max(value * STORM_BURST_S, STORM_BURST)
        bucket.frames = bucket.frames_max
        bucket.refilled_at = cycles()


def storm(Nic nic, uint32_t index, value):
    """Broadcasts and multicasts a second that the guest may send; 0: no limit."""
    cdef context_t *context = &nic.c.context[index]
    _limit_frames(context, LIMIT_STORM, &context.storm, value)


def flood(Nic nic, uint32_t index, value):
    """Frames to unknown destinations a second that promiscuous contexts get, too; 0: no limit."""
    cdef context_t *context = &nic.c.context[index]
    _limit_frames(context, LIMIT_FLOOD, &context.flood, value)


def takes(Nic nic, uint32_t index, value):
    """What may be left to do in frames for a context with virtio-net headers, a sum of `abi.Takes`."""
    nic.c.context[index].takes = check_takes(value, nic.c.context[index].vnet_header)


OPTIONS = {
    "mac": mac,
    "vlan": vlan,
    "anti_spoof": anti_spoof,
    "promiscuous": promiscuous,
    "all_multicast": all_multicast,
    "multicast": multicast,
    "weight": weight,
    "mtu": mtu,
    "coalesce": coalesce,
    "rate": rate,
    "storm": storm,
    "flood": flood,
    "takes": takes,
}
