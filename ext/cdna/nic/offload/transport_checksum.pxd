"""Transmit offloads, the Internet checksum and segmentation, and checksum verification on receive.

A guest says in an offload descriptor what is to be done to its frame, in the terms of virtio 1.2, 5.1.6.2:
the 16-bit field at csum_start + csum_offset holds the sum of the pseudo header, and the NIC stores there
the checksum of everything from csum_start to the end. With an mss the frame is large, and it is cut as well
(`segmentation.pxd`).

The descriptor and the frame are the guest's words: each value here is hostile until it was compared with
the frame's length. The frame lies in memory of the NIC, so what was compared stays as it was.
"""

from libc.stdint cimport uint8_t, uint32_t

from cdna.abi cimport FAULT_NONE, FAULT_OFFLOAD, offload_t
from cdna.checks cimport (
    CHECK_CSUM_FIELD, CHECK_CSUM_OFFSET, CHECK_CSUM_START, CHECK_CSUM_START_END, CHECK_IPV6_ROUTING, broken,
)
from cdna.nic.offload.checksum cimport fold, get_u16, put_checksum, sum_bytes
from cdna.nic.offload.ip cimport (
    IPPROTO_UDP, UDP_CSUM_OFFSET, ip_t, network_offset, parse_ip, sum_pseudo_header, transport_length,
)


cdef inline uint32_t checksum_fault(const uint8_t *head, uint32_t len, const offload_t *o) noexcept nogil:
    """FAULT_OFFLOAD where the checksum is not in the frame, of which `head` are 46 bytes or all there are.

    Behind Ethernet and its tags only: what the NIC reads to switch a frame can't change then, so addresses
    and VLAN may be checked before or after.
    """
    cdef uint32_t ethertype = 0, start = o.csum_start, offset = o.csum_offset, first
    first = network_offset(head, len, &ethertype)
    if first == 0 or broken(CHECK_CSUM_START, start < first) or \
            broken(CHECK_CSUM_START_END, start > len) or broken(CHECK_CSUM_OFFSET, offset > len - start) or \
            broken(CHECK_CSUM_FIELD, len - start - offset < 2):
        return FAULT_OFFLOAD
    return FAULT_NONE


cdef inline uint32_t checksum_finish(uint8_t *frame, uint32_t len, const offload_t *o) noexcept nogil:
    """Completes the checksum that the guest left to the NIC; FAULT_OFFLOAD where it is not in the frame."""
    cdef uint32_t start = o.csum_start, offset = o.csum_offset
    if checksum_fault(frame, len, o):
        return FAULT_OFFLOAD
    put_checksum(frame + start + offset, sum_bytes(frame + start, len - start), offset == UDP_CSUM_OFFSET)
    return FAULT_NONE


cdef inline bint checksum_ok(const uint8_t *frame, uint32_t len) noexcept nogil:
    """Whether a received frame is TCP or UDP over IPv4 or IPv6 whose transport checksum is right.

    False: wrong, or not known, as of fragments, of packets with segments of a route left, of UDP without a
    checksum, and of everything else. The checksum of the IPv4 header is the guest's to verify, as behind any
    NIC.
    """
    cdef ip_t ip
    cdef uint32_t size
    if not parse_ip(&ip, frame, len) or broken(CHECK_IPV6_ROUTING, ip.routed):
        return False
    size = transport_length(&ip, frame, len)
    if size == 0:
        return False
    if ip.protocol == IPPROTO_UDP and get_u16(frame + ip.transport + UDP_CSUM_OFFSET) == 0:
        return False
    return fold(sum_bytes(frame + ip.transport, size) + sum_pseudo_header(&ip, frame, size)) == 0xFFFF
