"""The records of a pcap file, plain or modified (capture_walk.pyx)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cdna.nic.capture_walk cimport (
    NO_FRAME_SIZE, PACKET, PACKET_HEADER, get32, keep_packet, more, refuse, walk_t,
)

cdef enum:
    PCAP_LONGEST = 262144       # bytes of a frame that a record's head may tell of
    SAMPLE = 4                  # records by which the length of their heads is found out


cdef inline bint record_possible(walk_t *walk, const uint8_t *at) noexcept nogil:
    """Whether a record can begin here."""
    cdef uint32_t len = get32(walk, at + 8), wire_len = get32(walk, at + 12)
    return get32(walk, at + 4) < 1000000 and len <= PCAP_LONGEST and wire_len <= PCAP_LONGEST and len > 0 \
        and (len <= wire_len or walk.lengths_swapped)


cdef inline int64_t records_follow(walk_t *walk, const uint8_t *at, size_t left, uint32_t head,
                                   bint usual) noexcept nogil:
    """Whether records with heads of this length follow here. Returns 1, 0, or -1: it can't be told yet."""
    cdef uint64_t begin = 0
    cdef int _
    for _ in range(SAMPLE):
        if walk.last and begin == left and begin > 0:
            break
        if begin + 16 > left:               # a file that is cut short is one of the usual kind
            return -1 if not walk.last else usual
        if not record_possible(walk, at + begin):
            return 0
        begin += head + get32(walk, at + begin + 8)
    return 1


cdef inline int64_t find_record_header(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    """Finds out the length of a record's head: with which one do more records, or the end, follow?

    Modified pcap has 24 bytes, or 28 as SuSE 6.3 wrote it; with the usual magic there are 24 of Red Hat 6.1
    and 20 of Nokia, too. Returns 1, or 0: more bytes are needed.
    """
    cdef uint32_t sizes[3]
    cdef int64_t fits
    cdef int i
    sizes[0], sizes[1], sizes[2] = 16, 24, 20
    if walk.modified:
        sizes[0], sizes[1], sizes[2] = 24, 28, 24
    for i in range(3):
        fits = records_follow(walk, at, left, sizes[i], i == 0)
        if fits < 0:
            return more(walk, PACKET_HEADER, 16)
        if fits:
            walk.record = sizes[i]
            return 1
    walk.record = sizes[0]
    return 1


cdef inline int64_t pcap_record(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    cdef uint64_t len, wire_len
    cdef int64_t known
    if walk.record == 0:
        known = find_record_header(walk, at, left)
        if known <= 0:
            return known
    if left < walk.record:
        return more(walk, PACKET_HEADER, walk.record)
    len, wire_len = get32(walk, at + 8), get32(walk, at + 12)
    if walk.lengths_swapped and len > wire_len:
        len, wire_len = wire_len, len
    if len > PCAP_LONGEST:
        return refuse(walk, NO_FRAME_SIZE, len)
    if left < walk.record + len:
        return more(walk, PACKET, len)
    if keep_packet(walk, walk.interface, at + walk.record, len, wire_len,
                   get32(walk, at) * <uint64_t>1000000000 + get32(walk, at + 4) * <uint64_t>walk.fraction,
                   True, walk.interface.fcs):
        return -1
    return walk.record + len
