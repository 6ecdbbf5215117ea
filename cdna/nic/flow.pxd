"""Which flow a frame belongs to: on a wire of several queues, one flow keeps to one queue, and its order."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.nic.offload cimport (
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_TCP, IPV4_HEADER, IPV6_HEADER, ip_t, network_offset, parse_ip,
)

cdef enum:
    IPV4_SOURCE = 12            # offsets in the network header; the destination follows
    IPV6_SOURCE = 8


cdef inline uint64_t mix(uint64_t hash, const uint8_t *at, uint32_t len) noexcept nogil:
    """Folds `len` bytes, a multiple of 4, into a hash: multiply and fold, as in FxHash."""
    cdef uint32_t word, i
    for i in range(0, len, 4):
        memcpy(&word, at + i, 4)
        hash = (hash ^ word) * <uint64_t>0x9E3779B97F4A7C15
        hash ^= hash >> 29
    return hash


cdef inline uint32_t flow_hash(const uint8_t *frame, uint32_t len) noexcept nogil:
    """A hash of the flow that a frame of at least 14 bytes belongs to, spread over 32 bits.

    TCP: of addresses and ports; other IP: of the addresses, since a fragment lacks the ports of its datagram;
    all else: of the two MAC addresses.
    """
    cdef ip_t ip
    cdef uint32_t ethertype = 0, at = network_offset(frame, len, &ethertype)
    cdef uint64_t hash
    if ethertype == ETHERTYPE_IPV4 and len - at >= IPV4_HEADER:
        hash = mix(4, frame + at + IPV4_SOURCE, 8)
    elif ethertype == ETHERTYPE_IPV6 and len - at >= IPV6_HEADER:
        hash = mix(6, frame + at + IPV6_SOURCE, 32)
    else:
        return <uint32_t>(mix(0, frame, 12) >> 32)
    if parse_ip(&ip, frame, len) and ip.protocol == IPPROTO_TCP and len - ip.transport >= 4:
        hash = mix(hash, frame + ip.transport, 4)
    return <uint32_t>(hash >> 32)
