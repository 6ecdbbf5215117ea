"""The benchmark's frames: written by generators and guests, checked by sinks, the same for every path.

Lengths are bytes from the destination address to the last byte of payload, without preamble and frame
check sequence. A frame carries its own description, so a sink checks it with no memory of the sender:

     0     6     12          14   16     20    24     32             len-8    len
    +-----+-----+-----------+----+------+-----+------+-- ... -------+--------+
    | dst | src | ethertype | 0  | flow | len | seq  |   payload    |  tail  |
    +-----+-----+-----------+----+------+-----+------+-- ... -------+--------+

Words are in the host's order. `tail` is a function of flow and seq: a frame that was cut, or put together
from two, is noticed even where the payload is not looked at. The ethertype is 0x88B5, IEEE 802 local
experimental. Payload is written and checked only for a load that verifies: a pattern of flow, seq and
offset, or the bytes of a capture.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from cdna.memory cimport SharedRegion

cdef enum:
    TRAFFIC_ETHERTYPE = 0xB588      # 0x88B5 in wire order, as a little-endian word
    STAMP_OFFSET = 16
    PAYLOAD_OFFSET = 32
    TAIL_BYTES = 8
    TRAFFIC_MIN_FRAME = 60          # Ethernet's minimum without the FCS; the layout needs 40
    TRAFFIC_MAX_FRAME = 9018        # MAX_FRAME of cdna.abi

cpdef enum FrameError:              # what `frame_check` found first; 0: nothing
    FRAME_OK = 0
    FRAME_FLOW = 1                  # a frame of another flow
    FRAME_SEQUENCE = 2              # lost, repeated or out of order
    FRAME_LENGTH = 3
    FRAME_TAIL = 4                  # the last eight bytes are another frame's
    FRAME_HEADER = 5                # ethertype, or the two bytes behind it
    FRAME_PAYLOAD = 6

cdef packed struct stamp_t:
    uint32_t flow
    uint32_t len
    uint64_t seq

cdef packed struct header_t:        # bytes 0..31
    uint8_t dst[6]
    uint8_t src[6]
    uint16_t ethertype
    uint16_t zero
    stamp_t stamp

# Frame number seq of a flow has length[seq % n]. Lies in memory that forked processes share.
cdef struct load_t:
    uint32_t n                      # frames in the cycle, at least 1
    uint32_t verify                 # 1: every byte is written and checked
    uint32_t max_length             # of length[]
    uint32_t reserved
    uint32_t *length                # each in TRAFFIC_MIN_FRAME..TRAFFIC_MAX_FRAME
    uint8_t **payload               # frame i of a capture, length[i] bytes from offset 0; NULL: pattern
    uint64_t bytes                  # sum of length[]


cdef class Load:
    cdef load_t *c
    cdef SharedRegion _region
    cdef readonly str name


cdef inline uint32_t load_index(const load_t *load, uint64_t seq) noexcept nogil:
    if load.n == 1:
        return 0
    if seq >> 32 == 0:              # a 32-bit division costs less than half of a 64-bit one
        return <uint32_t>seq % load.n
    return <uint32_t>(seq % load.n)


cdef inline uint32_t load_length(const load_t *load, uint64_t seq) noexcept nogil:
    """Length in bytes of frame number `seq` of a flow."""
    return load.length[load_index(load, seq)]


cdef inline uint64_t frame_tail(uint32_t flow, uint64_t seq) noexcept nogil:
    return (seq + 1) * <uint64_t>0x9E3779B97F4A7C15 ^ (<uint64_t>flow + 1) * <uint64_t>0xC2B2AE3D27D4EB4F


cdef inline stamp_t *frame_stamp(const uint8_t *frame) noexcept nogil:
    """The stamp of a frame of at least 32 bytes. Its memory may be a guest's: read once and check."""
    return <stamp_t *>(frame + STAMP_OFFSET)


cdef inline bint frame_is_stamped(const uint8_t *frame, uint32_t length) noexcept nogil:
    """Whether this is a frame of a benchmark, long enough to be checked."""
    return length >= TRAFFIC_MIN_FRAME and (<const header_t *>frame).ethertype == TRAFFIC_ETHERTYPE


cdef inline bint frame_is_addressed(const uint8_t *frame, uint64_t dst_mac, uint64_t src_mac) noexcept nogil:
    """Whether the first 12 bytes are these; frame_check, which knows no addresses, leaves them out."""
    return memcmp(frame, &dst_mac, 6) == 0 and memcmp(frame + 6, &src_mac, 6) == 0


cdef inline void pattern_write(uint8_t *frame, uint32_t end, uint64_t key) noexcept nogil:
    """Bytes PAYLOAD_OFFSET..end: 64-bit words that count up from `key` in odd steps."""
    cdef uint32_t words = (end - PAYLOAD_OFFSET) >> 3
    cdef uint64_t word = key
    cdef uint32_t i
    for i in range(words):
        word = key + i * <uint64_t>0xD6E8FEB86659FD93
        memcpy(frame + PAYLOAD_OFFSET + 8 * i, &word, 8)
    word = key + words * <uint64_t>0xD6E8FEB86659FD93
    memcpy(frame + PAYLOAD_OFFSET + 8 * words, &word, (end - PAYLOAD_OFFSET) & 7)


cdef inline bint pattern_check(const uint8_t *frame, uint32_t end, uint64_t key) noexcept nogil:
    cdef uint32_t words = (end - PAYLOAD_OFFSET) >> 3
    cdef uint64_t word = 0
    cdef uint64_t wrong = 0
    cdef uint32_t i
    for i in range(words):          # no way out of the loop: the compiler makes vectors of it
        memcpy(&word, frame + PAYLOAD_OFFSET + 8 * i, 8)
        wrong |= word ^ (key + i * <uint64_t>0xD6E8FEB86659FD93)
    word = key + words * <uint64_t>0xD6E8FEB86659FD93
    return wrong == 0 and memcmp(frame + PAYLOAD_OFFSET + 8 * words, &word, (end - PAYLOAD_OFFSET) & 7) == 0


cdef inline void frame_write_payload(uint8_t *frame, const load_t *load, uint32_t flow,
                                     uint64_t seq) noexcept nogil:
    """Bytes from PAYLOAD_OFFSET to the tail, whether or not the load verifies."""
    cdef uint32_t i = load_index(load, seq)
    cdef uint32_t end = load.length[i] - TAIL_BYTES
    if load.payload != NULL:
        memcpy(frame + PAYLOAD_OFFSET, load.payload[i] + PAYLOAD_OFFSET, end - PAYLOAD_OFFSET)
    else:
        pattern_write(frame, end, frame_tail(flow, seq))


cdef inline uint32_t frame_write(uint8_t *frame, const load_t *load, uint32_t flow, uint64_t seq,
                                 uint64_t dst_mac, uint64_t src_mac) noexcept nogil:
    """Writes frame number `seq` of a flow into a buffer of load.max_length bytes; returns its length.

    Not verifying, the payload is left as it is. Addresses are six bytes in wire order in the low 48 bits.
    """
    cdef uint32_t length = load_length(load, seq)
    cdef uint64_t tail = frame_tail(flow, seq)
    cdef uint64_t last = (src_mac >> 16 & <uint64_t>0xFFFFFFFF) | <uint64_t>TRAFFIC_ETHERTYPE << 32
    cdef uint64_t first = (dst_mac & <uint64_t>0xFFFFFFFFFFFF) | src_mac << 48
    cdef stamp_t *stamp = frame_stamp(frame)
    memcpy(frame, &first, 8)
    memcpy(frame + 8, &last, 8)     # the rest of src, the ethertype and two bytes of zero
    stamp.flow = flow
    stamp.len = length
    stamp.seq = seq
    if load.verify:
        frame_write_payload(frame, load, flow, seq)
    memcpy(frame + length - TAIL_BYTES, &tail, 8)
    return length


cdef inline int frame_check_payload(const uint8_t *frame, const load_t *load, uint32_t flow,
                                    uint64_t seq) noexcept nogil:
    """The part of frame_check for a load that verifies: all bytes but addresses, stamp and tail."""
    cdef const header_t *header = <const header_t *>frame
    cdef uint32_t i = load_index(load, seq)
    cdef uint32_t end = load.length[i] - TAIL_BYTES
    if header.ethertype != TRAFFIC_ETHERTYPE or header.zero != 0:
        return FRAME_HEADER
    if load.payload != NULL:
        if memcmp(frame + PAYLOAD_OFFSET, load.payload[i] + PAYLOAD_OFFSET, end - PAYLOAD_OFFSET) != 0:
            return FRAME_PAYLOAD
    elif not pattern_check(frame, end, frame_tail(flow, seq)):
        return FRAME_PAYLOAD
    return FRAME_OK


cdef inline int frame_check(const uint8_t *frame, uint32_t length, const load_t *load, uint32_t flow,
                            uint64_t expected_seq) noexcept nogil:
    """Compares a frame of `length` bytes, in one buffer, with what was sent; returns a FrameError."""
    cdef stamp_t *stamp = frame_stamp(frame)
    cdef uint64_t tail = 0
    if length < TRAFFIC_MIN_FRAME:
        return FRAME_LENGTH
    if stamp.flow != flow:
        return FRAME_FLOW
    if stamp.seq != expected_seq:
        return FRAME_SEQUENCE
    if length != load_length(load, expected_seq) or stamp.len != length:
        return FRAME_LENGTH
    memcpy(&tail, frame + length - TAIL_BYTES, 8)
    if tail != frame_tail(flow, expected_seq):
        return FRAME_TAIL
    if load.verify:
        return frame_check_payload(frame, load, flow, expected_seq)
    return FRAME_OK
