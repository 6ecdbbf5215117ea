"""Where the headers of an IP packet are in a frame: behind tags, options and extension headers.

The frame is a guest's or the wire's: each length in it is hostile until it was compared with the frame's.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport MIN_FRAME
from cdna.checks cimport (
    CHECK_ETHERNET_SHORT, CHECK_ETHERNET_TAG, CHECK_IPV4_FRAGMENT, CHECK_IPV4_HEADER, CHECK_IPV4_OPTIONS,
    CHECK_IPV4_SHORT, CHECK_IPV4_VERSION, CHECK_IPV6_EXTENSION, CHECK_IPV6_EXTENSION_END, CHECK_IPV6_SHORT,
    CHECK_IPV6_VERSION, broken,
)
from cdna.nic.demux cimport TAG_LENGTH, is_tag
from cdna.nic.offload.checksum cimport get_u16, htons, sum_bytes

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_HOPOPTS
        IPPROTO_TCP
        IPPROTO_UDP
        IPPROTO_ROUTING
        IPPROTO_FRAGMENT
        IPPROTO_DSTOPTS

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    MAX_TAGS = 8                # as many as Linux looks behind (VLAN_MAX_DEPTH)
    IPV4_HEADER = 20            # bytes, without options
    IPV4_MORE_FRAGMENTS = 0x2000    # of the word of flags and fragment offset (RFC 791, 3.1)
    IPV4_FRAGMENT = 0x3FFF      # more fragments, or an offset: not a whole packet
    IPV6_HEADER = 40
    MAX_EXTENSIONS = 8          # extension headers that are followed; nobody sends as many
    TCP_HEADER = 20             # bytes, without options
    TCP_CSUM_OFFSET = 16
    TCP_FLAGS = 13              # offset
    UDP_HEADER = 8
    UDP_CSUM_OFFSET = 6

cdef enum:                      # byte 13 of a TCP header (RFC 9293, 3.1)
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_PSH = 0x08
    TCP_CWR = 0x80

cdef struct ip_t:               # where the headers of an IP packet are: offsets in the frame, bytes
    uint32_t network
    uint32_t transport
    uint32_t next_header        # IPv6: the byte that says what stands at `transport`
    uint8_t version             # 4 or 6
    uint8_t protocol            # of the transport header, IPPROTO_*
    bint routed                 # IPv6: the packet has another destination yet, which its checksum is about


cdef inline uint32_t network_offset(const uint8_t *frame, uint32_t len, uint32_t *ethertype) noexcept nogil:
    """Where the network header starts, behind Ethernet and its tags; 0: the frame ends before."""
    cdef uint32_t at = MIN_FRAME, tags = 0
    if broken(CHECK_ETHERNET_SHORT, len < MIN_FRAME):
        return 0
    ethertype[0] = get_u16(frame + 12)
    while is_tag(ethertype[0]) and tags < MAX_TAGS:
        if broken(CHECK_ETHERNET_TAG, len - at < TAG_LENGTH):
            return 0
        ethertype[0] = get_u16(frame + at + 2)
        at += TAG_LENGTH
        tags += 1
    return at


cdef inline bint parse_ipv4(ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    cdef const uint8_t *header = frame + ip.network
    cdef uint32_t size
    if broken(CHECK_IPV4_SHORT, len - ip.network < IPV4_HEADER) or \
            broken(CHECK_IPV4_VERSION, header[0] >> 4 != 4) or \
            broken(CHECK_IPV4_FRAGMENT, get_u16(header + 6) & IPV4_FRAGMENT):
        return False
    size = <uint32_t>(header[0] & 15) * 4
    if broken(CHECK_IPV4_HEADER, size < IPV4_HEADER) or \
            broken(CHECK_IPV4_OPTIONS, size > len - ip.network):
        return False
    ip.version = 4
    ip.protocol = header[9]
    ip.transport = ip.network + size
    return True


cdef inline bint parse_ipv6(ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Follows hop-by-hop options, destination options and routing headers.

    Where a routing header has segments left, the pseudo header has the address of the final destination
    (RFC 8200, section 8.1). Where that stands is the type's own affair: `ip.routed`.
    """
    cdef uint32_t at = ip.network, size
    cdef int _
    if broken(CHECK_IPV6_SHORT, len - at < IPV6_HEADER) or broken(CHECK_IPV6_VERSION, frame[at] >> 4 != 6):
        return False
    ip.version = 6
    ip.protocol = frame[at + 6]
    ip.next_header = at + 6
    at += IPV6_HEADER
    for _ in range(MAX_EXTENSIONS):
        if ip.protocol not in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS):
            break
        if broken(CHECK_IPV6_EXTENSION, len - at < 8):
            return False
        size = (<uint32_t>frame[at + 1] + 1) * 8
        if broken(CHECK_IPV6_EXTENSION_END, size > len - at):
            return False
        ip.routed |= ip.protocol == IPPROTO_ROUTING and frame[at + 3] != 0
        ip.protocol = frame[at]
        ip.next_header = at
        at += size
    ip.transport = at
    return True


cdef inline bint parse_ip(ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Finds the transport header within `len` bytes. False: no IP packet, a fragment, or cut short.

    The packet's own length is not looked at.
    """
    cdef uint32_t ethertype = 0
    ip.network = network_offset(frame, len, &ethertype)
    ip.routed = False
    if ip.network == 0:
        return False
    if ethertype == ETHERTYPE_IPV4:
        return parse_ipv4(ip, frame, len)
    return ethertype == ETHERTYPE_IPV6 and parse_ipv6(ip, frame, len)


cdef inline uint64_t sum_pseudo_header(const ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Addresses, protocol and length of the transport packet (RFC 9293, 3.1; RFC 8200, 8.1); len < 65536.

    Not of a packet that is `routed`.
    """
    cdef uint64_t total = <uint64_t>htons(ip.protocol) + htons(<uint16_t>len)
    if ip.version == 4:
        return total + sum_bytes(frame + ip.network + 12, 8)
    return total + sum_bytes(frame + ip.network + 8, 32)


cdef inline uint32_t transport_length(const ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Bytes of the transport packet as its headers say; 0 where they say what can't be.

    A frame may be longer: Ethernet pads to 60 bytes.
    """
    cdef uint32_t end, datagram
    if ip.version == 4:
        end = get_u16(frame + ip.network + 2)
    else:
        end = <uint32_t>get_u16(frame + ip.network + 4) + IPV6_HEADER
    if end > len - ip.network or end < ip.transport - ip.network:
        return 0
    end -= ip.transport - ip.network
    if ip.protocol == IPPROTO_TCP:
        return end if end >= TCP_HEADER else 0
    if ip.protocol != IPPROTO_UDP or end < UDP_HEADER:
        return 0
    datagram = get_u16(frame + ip.transport + 4)
    return datagram if UDP_HEADER <= datagram <= end else 0
