"""Segmentation: one large frame becomes many, of at most `mss` bytes each (virtio 1.2, 5.1.6.2).

TCP, and several UDP datagrams in one frame: the hdr_len bytes of headers stand before each mss bytes of
payload, patched. The checksum of each is made of the partial sum that the sender has left in the field: the
pseudo header's, in which the length is exchanged. So the addresses in the pseudo header do not matter; behind
a routing header they are not those of the IPv6 header (RFC 8200, 8.1).

      0          ip.network     ip.transport    hdr_len                            len
     +----------+--------------+---------------+--------+--------+-- ... ----------+
     | Ethernet | IPv4 or IPv6 | TCP or UDP    |  mss   |  mss   |     the rest    |
     | and tags | and options  | and options   |        |        |                 |
     +----------+--------------+---------------+--------+--------+-- ... ----------+

One UDP datagram that is too long for the link: its checksum is completed, and the datagram, header and all,
is cut into IP fragments; mss is rounded down to a multiple of 8 (RFC 791, 3.2; RFC 8200, 4.5). For IPv6 each
gets a fragment header behind the extension headers, all of which are repeated:

      0          ip.network     ip.transport                                       len
     +----------+--------------+--------+--------+-- ... ----------+
     | Ethernet | IPv4 or IPv6 |  mss   |  mss   |     the rest    |
     +----------+--------------+--------+--------+-- ... ----------+

A datagram that is not longer than one fragment stays a whole packet.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.abi cimport (
    COMPLETION_F_CSUM_OK, FAULT_NONE, FAULT_OFFLOAD, MAX_FRAME, MAX_TSO_FRAME, OFFLOAD_KIND, OFFLOAD_TCP,
    OFFLOAD_UDP_FRAGMENTS, OFFLOAD_UDP_SEGMENTS, offload_t,
)
from cdna.checks cimport (
    CHECK_FRAGMENT_CSUM, CHECK_FRAGMENT_HEADER, CHECK_FRAGMENT_IPV4, CHECK_FRAGMENT_MSS,
    CHECK_FRAGMENT_PROTOCOL, CHECK_TCP_CSUM, CHECK_TCP_FLAGS, CHECK_TCP_OFFSET, CHECK_TCP_PROTOCOL,
    CHECK_TCP_SHORT, CHECK_TSO_HEADERS, CHECK_TSO_HEADERS_LONG, CHECK_TSO_KIND, CHECK_TSO_LONG,
    CHECK_TSO_MSS, CHECK_TSO_SEGMENT, CHECK_TSO_TRANSPORT, CHECK_UDP_CSUM, CHECK_UDP_HEADER,
    CHECK_UDP_PROTOCOL, broken,
)
from cdna.nic.offload.checksum cimport get_u16, get_u32, htons, put_checksum, put_u16, put_u32, sum_bytes
from cdna.nic.offload.fragment_id cimport fragment_ids_t, next_fragment_id
from cdna.nic.offload.ip cimport (
    IPPROTO_FRAGMENT, IPPROTO_TCP, IPPROTO_UDP, IPV4_HEADER, IPV4_MORE_FRAGMENTS, IPV6_HEADER,
    TCP_CSUM_OFFSET, TCP_CWR, TCP_FIN, TCP_FLAGS, TCP_HEADER, TCP_PSH, TCP_RST, TCP_SYN, UDP_CSUM_OFFSET,
    UDP_HEADER, ip_t, parse_ip,
)

cdef enum:
    # Bytes that may be repeated before each segment: the longest routing header (2048), and what is around.
    MAX_HEADERS = 2304
    MAX_IPV4 = 65535            # bytes of a packet
    IPV6_FRAGMENT_HEADER = 8
    IPV4_OPTION_END = 0
    IPV4_OPTION_NOP = 1
    IPV4_OPTION_COPIED = 0x80   # a flag: the option is in each fragment

cdef struct segmentation_t:     # a frame on its way to be segmented
    const uint8_t *frame        # NIC memory; unchanged until the last segment is out
    uint32_t len
    uint32_t kind               # OffloadKind
    uint32_t hdr_len            # bytes that are repeated: of fragments, to the end of the IP headers
    uint32_t added              # bytes put behind them: an IPv6 fragment header
    uint32_t mss
    uint32_t at                 # offset of the first payload byte that is not yet sent
    uint32_t sent               # segments
    uint32_t segments           # still to come
    uint32_t segment_max        # length of the longest segment: room that always suffices
    uint32_t flags              # CompletionFlag of each segment
    uint32_t id                 # of IPv6 fragments, from the first one on
    bint checksum               # of fragments: the datagram's is to be completed
    uint64_t partial            # sum of the pseudo header without the length
    ip_t ip


# --- the beginning ----------------------------------------------------------------------------------------

cdef inline uint64_t partial_sum(const segmentation_t *s, const offload_t *o) noexcept nogil:
    """The pseudo header's sum in the checksum field, without the length of the whole; 0: no such field."""
    cdef uint16_t field = 0
    if s.hdr_len - o.csum_start < 2 or o.csum_offset > s.hdr_len - o.csum_start - 2:
        return 0
    memcpy(&field, s.frame + o.csum_start + o.csum_offset, 2)
    return <uint64_t>field + <uint16_t>~htons(<uint16_t>(s.len - o.csum_start))


cdef inline uint64_t pseudo_sum(const segmentation_t *s, uint32_t size) noexcept nogil:
    """The pseudo header's sum of a transport packet of `size` bytes."""
    return s.partial + htons(<uint16_t>size)


cdef inline bint cuts_tcp(const segmentation_t *s, const uint8_t *frame, const offload_t *o) noexcept nogil:
    """A SYN takes a sequence number of its own, so it is not segmented."""
    cdef const uint8_t *tcp = frame + s.ip.transport
    cdef uint32_t size = s.hdr_len - s.ip.transport
    return not (broken(CHECK_TCP_PROTOCOL, s.ip.protocol != IPPROTO_TCP)
                or broken(CHECK_TCP_CSUM, o.csum_offset != TCP_CSUM_OFFSET)
                or broken(CHECK_TCP_SHORT, size < TCP_HEADER)
                or broken(CHECK_TCP_OFFSET, <uint32_t>(tcp[12] >> 4) * 4 != size)
                or broken(CHECK_TCP_FLAGS, tcp[TCP_FLAGS] & (TCP_SYN | TCP_RST)))


cdef inline bint cuts_udp(const segmentation_t *s, const offload_t *o) noexcept nogil:
    return not (broken(CHECK_UDP_PROTOCOL, s.ip.protocol != IPPROTO_UDP)
                or broken(CHECK_UDP_HEADER, s.hdr_len - s.ip.transport != UDP_HEADER)
                or broken(CHECK_UDP_CSUM, o.csum_offset != UDP_CSUM_OFFSET))


cdef inline bint fragments_udp(segmentation_t *s, const offload_t *o) noexcept nogil:
    if broken(CHECK_FRAGMENT_PROTOCOL, s.ip.protocol != IPPROTO_UDP) or \
            broken(CHECK_FRAGMENT_HEADER, s.hdr_len - s.ip.transport != UDP_HEADER) or \
            broken(CHECK_FRAGMENT_CSUM, o.csum_offset != UDP_CSUM_OFFSET and o.csum_offset != 0) or \
            broken(CHECK_FRAGMENT_IPV4, s.ip.version == 4 and s.len - s.ip.network > MAX_IPV4):
        return False
    s.checksum = o.csum_offset != 0
    s.hdr_len = s.ip.transport
    s.mss &= ~<uint32_t>7
    if s.len - s.hdr_len <= s.mss:
        s.flags = COMPLETION_F_CSUM_OK if s.checksum else 0
        return True
    s.flags = 0                         # who puts them together again sums them up again
    if s.ip.version == 6:
        s.added = IPV6_FRAGMENT_HEADER
    return not broken(CHECK_FRAGMENT_MSS, s.mss == 0)


cdef inline uint32_t segment_begin(segmentation_t *s, const uint8_t *frame, uint32_t len,
                                   const offload_t *o) noexcept nogil:
    """Checks a frame that is to be segmented, and prepares `s`; FAULT_OFFLOAD where its headers don't fit.

    The lengths in the IP and UDP headers are not read: drivers disagree over what stands there.
    """
    cdef uint32_t hdr_len = o.hdr_len & ~<uint32_t>OFFLOAD_KIND, payload
    cdef bint fits
    if broken(CHECK_TSO_LONG, len > MAX_TSO_FRAME) or broken(CHECK_TSO_MSS, o.mss == 0) or \
            broken(CHECK_TSO_HEADERS, hdr_len >= len) or \
            broken(CHECK_TSO_HEADERS_LONG, hdr_len > MAX_HEADERS):
        return FAULT_OFFLOAD
    if not parse_ip(&s.ip, frame, hdr_len) or broken(CHECK_TSO_TRANSPORT, o.csum_start != s.ip.transport):
        return FAULT_OFFLOAD
    s.frame = frame
    s.len = len
    s.kind = o.hdr_len & <uint32_t>OFFLOAD_KIND
    s.hdr_len = hdr_len
    s.added = 0
    s.mss = o.mss
    s.partial = partial_sum(s, o)
    s.flags = COMPLETION_F_CSUM_OK
    if s.kind == OFFLOAD_TCP:
        fits = cuts_tcp(s, frame, o)
    elif s.kind == OFFLOAD_UDP_SEGMENTS:
        fits = cuts_udp(s, o)
    elif s.kind == OFFLOAD_UDP_FRAGMENTS:
        fits = fragments_udp(s, o)
    else:
        fits = not broken(CHECK_TSO_KIND, True)
    if not fits:
        return FAULT_OFFLOAD
    payload = len - s.hdr_len
    s.segment_max = s.hdr_len + s.added + (s.mss if s.mss < payload else payload)
    if broken(CHECK_TSO_SEGMENT, s.segment_max > MAX_FRAME):
        return FAULT_OFFLOAD
    s.at = s.hdr_len
    s.sent = 0
    s.segments = (payload + s.mss - 1) // s.mss
    return FAULT_NONE


# --- the headers of a segment -----------------------------------------------------------------------------

cdef inline void patch_network(const segmentation_t *s, uint8_t *out, uint32_t len) noexcept nogil:
    """The IP header of a segment of `len` bytes: its length, in IPv4 the checksum too."""
    cdef uint8_t *ip = out + s.ip.network
    if s.ip.version == 6:
        put_u16(ip + 4, len - s.ip.network - IPV6_HEADER)
        return
    put_u16(ip + 2, len - s.ip.network)
    put_u16(ip + 10, 0)
    put_checksum(ip + 10, sum_bytes(ip, s.ip.transport - s.ip.network), False)


cdef inline void patch_segment(const segmentation_t *s, uint8_t *out, uint32_t len) noexcept nogil:
    """A packet of its own has an identification of its own."""
    cdef uint8_t *ip = out + s.ip.network
    if s.ip.version == 4:
        put_u16(ip + 4, get_u16(ip + 4) + s.sent)
    patch_network(s, out, len)


cdef inline void patch_tcp(const segmentation_t *s, uint8_t *out, uint32_t len) noexcept nogil:
    """The TCP header of a segment of `len` bytes: sequence number, flags, checksum.

    FIN and PSH belong to the end of the data, CWR to its beginning (RFC 3168, section 6.1.2).
    """
    cdef uint8_t *tcp = out + s.ip.transport
    cdef uint32_t size = len - s.ip.transport
    put_u32(tcp + 4, get_u32(tcp + 4) + s.at - s.hdr_len)
    if s.segments > 1:
        tcp[TCP_FLAGS] &= <uint8_t>~(TCP_FIN | TCP_PSH)
    if s.sent > 0:
        tcp[TCP_FLAGS] &= <uint8_t>~TCP_CWR
    put_u16(tcp + TCP_CSUM_OFFSET, 0)
    put_checksum(tcp + TCP_CSUM_OFFSET, sum_bytes(tcp, size) + pseudo_sum(s, size), False)


cdef inline void patch_udp(const segmentation_t *s, uint8_t *out, uint32_t len) noexcept nogil:
    """The UDP header of a datagram in a frame of `len` bytes: length, checksum."""
    cdef uint8_t *udp = out + s.ip.transport
    cdef uint32_t size = len - s.ip.transport
    put_u16(udp + 4, size)
    put_u16(udp + UDP_CSUM_OFFSET, 0)
    put_checksum(udp + UDP_CSUM_OFFSET, sum_bytes(udp, size) + pseudo_sum(s, size), True)


# --- the headers of a fragment ----------------------------------------------------------------------------

cdef inline void complete_datagram(const segmentation_t *s, uint8_t *udp) noexcept nogil:
    """The UDP header of a datagram that is fragmented: its length and checksum are the whole one's."""
    cdef const uint8_t *whole = s.frame + s.ip.transport
    cdef uint32_t size = s.len - s.ip.transport
    cdef uint64_t total
    put_u16(udp + 4, size)
    total = sum_bytes(udp, 6) + sum_bytes(whole + UDP_HEADER, size - UDP_HEADER)
    put_checksum(udp + UDP_CSUM_OFFSET, total + pseudo_sum(s, size), True)


cdef inline void blank_options(uint8_t *ip, uint32_t size) noexcept nogil:
    """Blanks the options of an IPv4 header that only the first fragment has (RFC 791, 3.1)."""
    cdef uint32_t at = IPV4_HEADER, n
    while at < size and ip[at] != IPV4_OPTION_END:
        n = 1
        if ip[at] != IPV4_OPTION_NOP:
            if size - at < 2 or ip[at + 1] < 2 or ip[at + 1] > size - at:
                return                  # no option; whatever it is, it is repeated
            n = ip[at + 1]
            if not ip[at] & IPV4_OPTION_COPIED:
                memset(ip + at, IPV4_OPTION_NOP, n)
        at += n


cdef inline void patch_fragment(const segmentation_t *s, uint8_t *out, uint32_t len) noexcept nogil:
    """The headers of a fragment: one identification, the offset, whether more follow."""
    cdef uint32_t offset = s.at - s.hdr_len
    cdef bint more = s.segments > 1
    cdef uint8_t *ip = out + s.ip.network
    cdef uint8_t *extension = out + s.hdr_len
    if s.sent == 0 and s.checksum:
        complete_datagram(s, out + s.hdr_len + s.added)
    if s.added:
        out[s.ip.next_header] = IPPROTO_FRAGMENT
        extension[0] = IPPROTO_UDP
        extension[1] = 0
        put_u16(extension + 2, offset | more)
        put_u32(extension + 4, s.id)
    elif s.ip.version == 4 and (more or s.sent):    # and "don't fragment" is gone
        put_u16(ip + 6, offset >> 3 | (IPV4_MORE_FRAGMENTS if more else 0))
        if s.sent:
            blank_options(ip, s.ip.transport - s.ip.network)
    patch_network(s, out, len)


# --- the segments -----------------------------------------------------------------------------------------

cdef inline uint32_t segment_next(segmentation_t *s, fragment_ids_t *ids, uint8_t *out,
                                  uint32_t room) noexcept nogil:
    """Writes the next segment to `out`, which has `room` bytes; returns its length, or 0 at the end.

    Also 0, and nothing written, where it does not fit: s.segments says how many are still to come, and
    s.segment_max how much room each of them needs at most.
    """
    cdef uint32_t payload = s.len - s.at, headers = s.hdr_len + s.added, len
    if payload > s.mss:
        payload = s.mss
    len = headers + payload
    if payload == 0 or len > room:
        return 0
    if s.added and s.sent == 0:
        s.id = next_fragment_id(ids)
    memcpy(out, s.frame, s.hdr_len)
    memcpy(out + headers, s.frame + s.at, payload)
    if s.kind == OFFLOAD_UDP_FRAGMENTS:
        patch_fragment(s, out, len)
    else:
        patch_segment(s, out, len)
        if s.kind == OFFLOAD_TCP:
            patch_tcp(s, out, len)
        else:
            patch_udp(s, out, len)
    s.at += payload
    s.sent += 1
    s.segments -= 1
    return len
