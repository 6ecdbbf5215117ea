"""Transmit offloads, the Internet checksum and TCP segmentation, and checksum verification on receive.

A guest says in an offload descriptor what is to be done to its frame, in the terms of virtio 1.2, 5.1.6.2:
the 16-bit field at csum_start + csum_offset holds the sum of the pseudo header, and the NIC stores there
the checksum of everything from csum_start to the end. With an mss the frame is one large TCP segment, its
hdr_len bytes of headers stand before each mss bytes of payload, patched:

      0          ip.network     ip.transport    hdr_len                            len
     +----------+--------------+---------------+--------+--------+-- ... ----------+
     | Ethernet | IPv4 or IPv6 | TCP           |  mss   |  mss   |     the rest    |
     | and tags | and options  | and options   |        |        |                 |
     +----------+--------------+---------------+--------+--------+-- ... ----------+

The descriptor and the frame are the guest's words: each value here is hostile until it was compared with
the frame's length. The frame lies in memory of the NIC, so what was compared stays as it was.
Segmentation of UDP would be a second protocol in `tso_begin` and `patch_transport`.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport FAULT_NONE, FAULT_OFFLOAD, MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME, offload_t
from cdna.nic.demux cimport ETHERTYPE_QINQ, ETHERTYPE_VLAN, TAG_LENGTH

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t ntohs(uint16_t value)
    uint16_t htons(uint16_t value)
    uint32_t ntohl(uint32_t value)
    uint32_t htonl(uint32_t value)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_HOPOPTS
        IPPROTO_TCP
        IPPROTO_UDP
        IPPROTO_ROUTING
        IPPROTO_DSTOPTS

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    MAX_TAGS = 2
    IPV4_HEADER = 20            # bytes, without options
    IPV4_FRAGMENT = 0x3FFF      # more fragments, or an offset: not a whole packet (RFC 791, 3.1)
    IPV6_HEADER = 40
    MAX_EXTENSIONS = 8          # extension headers that are followed; nobody sends as many
    TCP_HEADER = 20             # bytes, without options
    TCP_CSUM_OFFSET = 16
    UDP_HEADER = 8
    UDP_CSUM_OFFSET = 6
    MAX_TSO_HEADERS = 256       # bytes that may be repeated before each segment, as in common NICs

cdef enum:                      # byte 13 of a TCP header (RFC 9293, 3.1)
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_PSH = 0x08
    TCP_CWR = 0x80

cdef struct ip_t:               # where the headers of an IP packet are: offsets in the frame, bytes
    uint32_t network
    uint32_t transport
    uint8_t version             # 4 or 6
    uint8_t protocol            # of the transport header, IPPROTO_*

cdef struct tso_t:              # a frame on its way to be segmented
    const uint8_t *frame        # NIC memory; unchanged until the last segment is out
    uint32_t len
    uint32_t hdr_len
    uint32_t mss
    uint32_t at                 # offset of the first payload byte that is not yet sent
    uint32_t sent               # segments
    uint32_t segments           # still to come
    uint32_t segment_max        # length of the longest segment: room that always suffices
    ip_t ip


cdef inline uint16_t get_u16(const uint8_t *at) noexcept nogil:
    """A 16-bit word in network order, at any alignment; the following likewise."""
    cdef uint16_t value
    memcpy(&value, at, 2)
    return ntohs(value)


cdef inline uint32_t get_u32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return ntohl(value)


cdef inline void put_u16(uint8_t *at, uint32_t value) noexcept nogil:
    cdef uint16_t word = htons(<uint16_t>value)
    memcpy(at, &word, 2)


cdef inline void put_u32(uint8_t *at, uint32_t value) noexcept nogil:
    cdef uint32_t word = htonl(value)
    memcpy(at, &word, 4)


cdef inline uint64_t sum_bytes(const uint8_t *at, uint32_t len) noexcept nogil:
    """The one's complement sum of 16-bit words, not yet folded; an odd last byte is padded with zero.

    Words are added in the host's order, eight bytes a step: the sum is the same but for its byte order, and
    carries are folded once (RFC 1071, section 2). Two accumulators of 32-bit halves leave the loop without
    a carry, so that the compiler makes vectors of it. Below 2**62, and so are sums of a few sums.
    """
    cdef uint64_t low = 0, high = 0, eight = 0
    cdef uint32_t four = 0, i
    cdef uint16_t two = 0
    for i in range(len >> 3):
        memcpy(&eight, at + 8 * <uint64_t>i, 8)
        low += <uint32_t>eight
        high += eight >> 32
    at += len & ~<uint32_t>7
    if len & 4:
        memcpy(&four, at, 4)
        low += four
        at += 4
    if len & 2:
        memcpy(&two, at, 2)
        low += two
        at += 2
    if len & 1:
        two = 0
        memcpy(&two, at, 1)
        high += two
    return low + high


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """A sum below 2**62 as 16 bits, in the order in which it lies in a frame; 0 for zeros alone."""
    total = <uint64_t><uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16 & 0xFFFF) + (total >> 32)
    return <uint16_t>((total & 0xFFFF) + (total >> 16))


cdef inline void put_checksum(uint8_t *at, uint64_t total, bint never_zero) noexcept nogil:
    """Stores the complement of a sum. `never_zero`: as UDP, where a checksum of 0 means none (RFC 768)."""
    cdef uint16_t checksum = ~fold(total)
    if checksum == 0 and never_zero:
        checksum = 0xFFFF
    memcpy(at, &checksum, 2)


cdef inline uint32_t network_offset(const uint8_t *frame, uint32_t len, uint32_t *ethertype) noexcept nogil:
    """Where the network header starts, behind Ethernet and its tags; 0: the frame ends before."""
    cdef uint32_t at = MIN_FRAME, tags = 0
    if len < MIN_FRAME:
        return 0
    ethertype[0] = get_u16(frame + 12)
    while (ethertype[0] == ETHERTYPE_VLAN or ethertype[0] == ETHERTYPE_QINQ) and tags < MAX_TAGS:
        if len - at < TAG_LENGTH:
            return 0
        ethertype[0] = get_u16(frame + at + 2)
        at += TAG_LENGTH
        tags += 1
    return at


cdef inline bint parse_ipv4(ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    cdef const uint8_t *header = frame + ip.network
    cdef uint32_t size
    if len - ip.network < IPV4_HEADER or header[0] >> 4 != 4 or get_u16(header + 6) & IPV4_FRAGMENT:
        return False
    size = <uint32_t>(header[0] & 15) * 4
    if size < IPV4_HEADER or size > len - ip.network:
        return False
    ip.version = 4
    ip.protocol = header[9]
    ip.transport = ip.network + size
    return True


cdef inline bint parse_ipv6(ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Follows hop-by-hop options, destination options and routing headers that are at their end.

    Where a routing header has segments left, the pseudo header has another destination address (RFC 8200,
    section 8.1); such a packet is left alone.
    """
    cdef uint32_t at = ip.network, size
    cdef int _
    if len - at < IPV6_HEADER or frame[at] >> 4 != 6:
        return False
    ip.version = 6
    ip.protocol = frame[at + 6]
    at += IPV6_HEADER
    for _ in range(MAX_EXTENSIONS):
        if ip.protocol not in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS):
            break
        if len - at < 8:
            return False
        size = (<uint32_t>frame[at + 1] + 1) * 8
        if size > len - at or (ip.protocol == IPPROTO_ROUTING and frame[at + 3] != 0):
            return False
        ip.protocol = frame[at]
        at += size
    ip.transport = at
    return True


cdef inline bint parse_ip(ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Finds the transport header within `len` bytes. False: no IP packet, a fragment, or cut short.

    The packet's own length is not looked at.
    """
    cdef uint32_t ethertype = 0
    ip.network = network_offset(frame, len, &ethertype)
    if ip.network == 0:
        return False
    if ethertype == ETHERTYPE_IPV4:
        return parse_ipv4(ip, frame, len)
    return ethertype == ETHERTYPE_IPV6 and parse_ipv6(ip, frame, len)


cdef inline uint64_t sum_pseudo_header(const ip_t *ip, const uint8_t *frame, uint32_t len) noexcept nogil:
    """Addresses, protocol and length of the transport packet (RFC 9293, 3.1; RFC 8200, 8.1); len < 65536."""
    cdef uint64_t total = <uint64_t>htons(ip.protocol) + htons(<uint16_t>len)
    if ip.version == 4:
        return total + sum_bytes(frame + ip.network + 12, 8)
    return total + sum_bytes(frame + ip.network + 8, 32)


cdef inline uint32_t checksum_fault(const uint8_t *head, uint32_t len, const offload_t *o) noexcept nogil:
    """FAULT_OFFLOAD where the checksum is not in the frame, of which `head` are 22 bytes or all there are.

    Behind Ethernet and its tags only: what the NIC reads to switch a frame can't change then, so addresses
    and VLAN may be checked before or after.
    """
    cdef uint32_t ethertype = 0, start = o.csum_start, offset = o.csum_offset, first
    first = network_offset(head, len, &ethertype)
    if first == 0 or start < first or start > len or offset > len - start or len - start - offset < 2:
        return FAULT_OFFLOAD
    return FAULT_NONE


cdef inline uint32_t checksum_finish(uint8_t *frame, uint32_t len, const offload_t *o) noexcept nogil:
    """Completes the checksum that the guest left to the NIC; FAULT_OFFLOAD where it is not in the frame."""
    cdef uint32_t start = o.csum_start, offset = o.csum_offset
    if checksum_fault(frame, len, o):
        return FAULT_OFFLOAD
    put_checksum(frame + start + offset, sum_bytes(frame + start, len - start), offset == UDP_CSUM_OFFSET)
    return FAULT_NONE


cdef inline uint32_t tso_begin(tso_t *t, const uint8_t *frame, uint32_t len,
                               const offload_t *o) noexcept nogil:
    """Checks a frame that is to be segmented, and prepares `t`; FAULT_OFFLOAD where its headers don't fit.

    The lengths in the IP header are not read: drivers disagree over what stands there. A SYN takes a
    sequence number of its own, so it is not segmented.
    """
    cdef uint32_t hdr_len = o.hdr_len, mss = o.mss, payload
    cdef const uint8_t *tcp
    if len > MAX_TSO_FRAME or mss == 0 or hdr_len >= len or hdr_len > MAX_TSO_HEADERS:
        return FAULT_OFFLOAD
    if not parse_ip(&t.ip, frame, hdr_len) or t.ip.protocol != IPPROTO_TCP:
        return FAULT_OFFLOAD
    if o.csum_start != t.ip.transport or o.csum_offset != TCP_CSUM_OFFSET:
        return FAULT_OFFLOAD
    if hdr_len - t.ip.transport < TCP_HEADER:
        return FAULT_OFFLOAD
    tcp = frame + t.ip.transport
    if <uint32_t>(tcp[12] >> 4) * 4 != hdr_len - t.ip.transport or tcp[13] & (TCP_SYN | TCP_RST):
        return FAULT_OFFLOAD
    payload = len - hdr_len
    t.segment_max = hdr_len + (mss if mss < payload else payload)
    if t.segment_max > MAX_FRAME:
        return FAULT_OFFLOAD
    t.frame = frame
    t.len = len
    t.hdr_len = hdr_len
    t.mss = mss
    t.at = hdr_len
    t.sent = 0
    t.segments = (payload + mss - 1) // mss
    return FAULT_NONE


cdef inline void patch_network(const tso_t *t, uint8_t *out, uint32_t len) noexcept nogil:
    """The IP header of a segment of `len` bytes: its length, in IPv4 identification and checksum too."""
    cdef uint8_t *ip = out + t.ip.network
    if t.ip.version == 6:
        put_u16(ip + 4, len - t.ip.network - IPV6_HEADER)
        return
    put_u16(ip + 2, len - t.ip.network)
    put_u16(ip + 4, get_u16(ip + 4) + t.sent)
    put_u16(ip + 10, 0)
    put_checksum(ip + 10, sum_bytes(ip, t.ip.transport - t.ip.network), False)


cdef inline void patch_transport(const tso_t *t, uint8_t *out, uint32_t len) noexcept nogil:
    """The TCP header of a segment of `len` bytes: sequence number, flags, checksum.

    FIN and PSH belong to the end of the data, CWR to its beginning (RFC 3168, section 6.1.2).
    """
    cdef uint8_t *tcp = out + t.ip.transport
    cdef uint32_t size = len - t.ip.transport
    put_u32(tcp + 4, get_u32(tcp + 4) + t.at - t.hdr_len)
    if t.segments > 1:
        tcp[13] &= <uint8_t>~(TCP_FIN | TCP_PSH)
    if t.sent > 0:
        tcp[13] &= <uint8_t>~TCP_CWR
    put_u16(tcp + TCP_CSUM_OFFSET, 0)
    put_checksum(tcp + TCP_CSUM_OFFSET, sum_bytes(tcp, size) + sum_pseudo_header(&t.ip, out, size), False)


cdef inline uint32_t tso_next(tso_t *t, uint8_t *out, uint32_t room) noexcept nogil:
    """Writes the next segment to `out`, which has `room` bytes; returns its length, or 0 at the end.

    Also 0, and nothing written, where it does not fit: t.segments says how many are still to come, and
    t.segment_max how much room each of them needs at most.
    """
    cdef uint32_t payload = t.len - t.at, len
    if payload > t.mss:
        payload = t.mss
    len = t.hdr_len + payload
    if payload == 0 or len > room:
        return 0
    memcpy(out, t.frame, t.hdr_len)
    memcpy(out + t.hdr_len, t.frame + t.at, payload)
    patch_network(t, out, len)
    patch_transport(t, out, len)
    t.at += payload
    t.sent += 1
    t.segments -= 1
    return len


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


cdef inline bint checksum_ok(const uint8_t *frame, uint32_t len) noexcept nogil:
    """Whether a received frame is TCP or UDP over IPv4 or IPv6 whose transport checksum is right.

    False: wrong, or not known, as of fragments, of UDP without a checksum, and of everything else. The
    checksum of the IPv4 header is the guest's to verify, as behind any NIC.
    """
    cdef ip_t ip
    cdef uint32_t size
    if not parse_ip(&ip, frame, len):
        return False
    size = transport_length(&ip, frame, len)
    if size == 0:
        return False
    if ip.protocol == IPPROTO_UDP and get_u16(frame + ip.transport + UDP_CSUM_OFFSET) == 0:
        return False
    return fold(sum_bytes(frame + ip.transport, size) + sum_pseudo_header(&ip, frame, size)) == 0xFFFF
