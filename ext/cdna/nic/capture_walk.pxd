"""Walking a capture file as its bytes come in: what is kept between two pieces of it, and how it is read.

pcap: a head of 24 bytes, then records of a head, `record` bytes long, and a frame.
pcapng: blocks of a type, a total length, a body and the total length again, in their section's byte order.

Here is what both have; capture_pcap.pxd and capture_pcapng.pxd have the rest.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset

from cdna.abi cimport Limits
from cdna.nic.captured cimport DUE_MAX, store_add, store_t

cdef extern from *:
    """
    typedef unsigned __int128 cdna_u128;
    #define cdna_swap16(x) __builtin_bswap16(x)
    #define cdna_swap32(x) __builtin_bswap32(x)
    #define cdna_swap64(x) __builtin_bswap64(x)
    """
    ctypedef unsigned long long u128 "cdna_u128"
    uint16_t cdna_swap16(uint16_t x) nogil
    uint32_t cdna_swap32(uint32_t x) nogil
    uint64_t cdna_swap64(uint64_t x) nogil

cdef enum:
    LONGEST_BLOCK = 1 << 24     # bytes; only a block of no use here may be longer
    FCS = 4                     # bytes of Ethernet's frame check sequence
    LINKTYPE_ETHERNET = 1
    MICROSECONDS = 6            # if_tsresol where none is given

cdef enum part_t:               # of the file, what comes next
    FILE_HEADER
    PACKET_HEADER
    PACKET
    BLOCK
    END_OF_BLOCK

cdef enum trouble_t:
    NO_TROUBLE
    NO_CAPTURE
    NO_MEMORY
    OTHER_LINK
    NO_FRAME_SIZE
    TOO_EARLY
    TOO_LATE
    BLOCK_SIZE
    BLOCK_SHORT
    BLOCK_LONG
    BLOCK_END
    SECTION_ORDER
    PCAP_VERSION
    PCAPNG_VERSION
    NO_INTERFACE
    OPTION_SIZE

cdef struct interface_t:
    uint32_t linktype
    uint32_t snaplen            # 0: none
    uint32_t fcs                # bytes of it behind each frame
    uint32_t resolution         # if_tsresol: a power of 10, or, with 0x80, of 2
    int64_t offset              # if_tsoffset, seconds
    int64_t latest              # greatest due time of its frames

cdef struct options_t:
    const uint8_t *at
    size_t left

cdef struct walk_t:
    store_t *store
    uint64_t offset             # in the file, of what comes next
    uint64_t packet             # number of the next one, from 1
    part_t part
    uint64_t need               # bytes of what comes next
    trouble_t trouble
    uint64_t value              # what the trouble is about
    uint64_t other
    bint pcap
    bint pcapng
    bint swapped                # the other byte order than this machine's
    bint last                   # no more bytes follow
    uint32_t record             # pcap: bytes of a record's head; 0: not known yet
    bint modified               # pcap with more in a record's head
    uint32_t fraction           # pcap: nanoseconds of a record's fraction of a second
    bint lengths_swapped        # pcap 2.3: some programs wrote the two lengths the other way round
    interface_t *interface      # of this section, or the one of a pcap file
    uint32_t interfaces
    uint32_t room               # interfaces that there is memory for
    uint64_t skip               # bytes of a block that are passed over
    uint32_t total              # length of that block


cdef inline uint16_t get16(const walk_t *walk, const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return cdna_swap16(value) if walk.swapped else value


cdef inline uint32_t get32(const walk_t *walk, const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return cdna_swap32(value) if walk.swapped else value


cdef inline uint64_t get64(const walk_t *walk, const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return cdna_swap64(value) if walk.swapped else value


cdef inline int64_t refuse(walk_t *walk, trouble_t trouble, uint64_t value=0,
                           uint64_t other=0) noexcept nogil:
    """Notes what is wrong. Returns -1."""
    walk.trouble, walk.value, walk.other = trouble, value, other
    return -1


cdef inline int64_t more(walk_t *walk, part_t part, uint64_t need) noexcept nogil:
    """Notes how long the next part is, which is not there whole. Returns 0."""
    walk.part, walk.need = part, need
    return 0


cdef inline int64_t next_option(walk_t *walk, options_t *options, uint32_t *code, uint32_t *len,
                                const uint8_t **value) noexcept nogil:
    """Takes an option off. Returns 1, 0: there is none, or -1: it is longer than its block."""
    cdef size_t padded
    if options.left < 4:
        return 0
    code[0], len[0] = get16(walk, options.at), get16(walk, options.at + 2)
    if code[0] == 0:
        return 0
    padded = (<size_t>len[0] + 3) & ~<size_t>3
    if padded > options.left - 4:
        return refuse(walk, OPTION_SIZE, len[0], options.left - 4)
    value[0] = options.at + 4
    options.at += 4 + padded
    options.left -= 4 + padded
    return 1


cdef inline int64_t nanoseconds(walk_t *walk, const interface_t *interface, uint64_t ticks,
                                uint64_t *ns) noexcept nogil:
    """The time of a packet in nanoseconds since 1970. Returns 0, or -1: not in 0 to 2 ** 63 - 1."""
    cdef u128 since = ticks
    cdef u128 moved
    cdef uint32_t power = interface.resolution & 0x7F
    cdef uint64_t offset = <uint64_t>interface.offset
    if interface.resolution & 0x80:
        since = since * 1000000000 >> power
    else:
        while power < 9 and since >> 64 == 0:
            since *= 10
            power += 1
        while power > 9 and since:
            since = since // 10
            power -= 1
    moved = <u128>(0 - offset if interface.offset < 0 else offset) * 1000000000
    if interface.offset < 0:
        if moved > since:
            return refuse(walk, TOO_EARLY)
        since -= moved
    else:
        since += moved
    if since >> 63:
        return refuse(walk, TOO_LATE)
    ns[0] = <uint64_t>since
    return 0


# --- what both formats have --------------------------------------------------------------------------------

cdef inline int64_t keep_packet(walk_t *walk, interface_t *interface, const uint8_t *data, uint64_t len,
                                uint64_t wire_len, uint64_t timestamp_ns, bint dated,
                                uint32_t fcs) noexcept nogil:
    """Keeps a packet, without its frame check sequence. Returns 0, or -1."""
    cdef int64_t *latest = &interface.latest if dated else NULL
    wire_len = max(wire_len, len)
    if fcs == FCS and wire_len >= FCS:      # no other length is Ethernet's
        wire_len -= FCS
        len = min(len, wire_len)
    if interface.linktype != LINKTYPE_ETHERNET:
        return refuse(walk, OTHER_LINK, interface.linktype)
    if not Limits.MIN_FRAME <= len <= Limits.MAX_FRAME:
        return refuse(walk, NO_FRAME_SIZE, len)
    if wire_len > Limits.MAX_FRAME:
        return refuse(walk, NO_FRAME_SIZE, wire_len)
    if store_add(walk.store, data, <uint32_t>len, <uint32_t>wire_len, timestamp_ns, latest):
        return refuse(walk, NO_MEMORY)
    walk.packet += 1
    return 0


cdef inline interface_t *new_interface(walk_t *walk) noexcept nogil:
    """One more interface of this section. NULL: no memory."""
    cdef uint32_t room = 2 * walk.room if walk.room else 4
    cdef interface_t *interface = walk.interface
    if walk.interfaces == walk.room:
        interface = <interface_t *>realloc(interface, room * sizeof(interface_t))
        if interface == NULL:
            refuse(walk, NO_MEMORY)
            return NULL
        walk.interface, walk.room = interface, room
    interface = &interface[walk.interfaces]
    memset(interface, 0, sizeof(interface_t))
    interface.resolution = MICROSECONDS
    interface.latest = -DUE_MAX
    walk.interfaces += 1
    return interface
