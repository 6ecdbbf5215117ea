"""A bounded ring of frames between one producer and one consumer, in memory that both share.

Indices run freely; slot index & (size - 1) belongs to the producer until it advances `producer`, and to the
consumer from then until it advances `consumer`. A slot is a header and room for the longest frame:

     0     4          8              16
    +-----+----------+--------------+-- ... --+
    | len | reserved | timestamp_ns | frame   |
    +-----+----------+--------------+-- ... --+
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.cpu cimport load_u32, store_u32

cdef enum:
    SLOT_HEADER = 16
    SLOT_STRIDE = 9152          # an odd number of cache lines: headers lie in different sets of the cache
    SLOT_BYTES = 9136           # for the frame: the longest of the NIC, tag included

cdef packed struct slot_t:
    uint32_t len
    uint32_t reserved
    uint64_t timestamp_ns

cdef struct spsc_t:
    uint32_t producer           # written by the producer alone
    uint8_t _pad0[60]
    uint32_t consumer           # written by the consumer alone
    uint8_t _pad1[60]
    uint32_t size               # a power of two
    uint8_t *slot


cdef inline uint32_t spsc_used(const spsc_t *ring) noexcept nogil:
    return load_u32(&ring.producer) - load_u32(&ring.consumer)


cdef inline slot_t *spsc_slot(const spsc_t *ring, uint32_t index) noexcept nogil:
    return <slot_t *>(ring.slot + <uint64_t>(index & (ring.size - 1)) * SLOT_STRIDE)


cdef inline uint8_t *slot_data(slot_t *slot) noexcept nogil:
    return <uint8_t *>slot + SLOT_HEADER


cdef inline bint spsc_put(spsc_t *ring, const uint8_t *data, uint32_t length,
                          uint64_t timestamp_ns) noexcept nogil:
    """Producer: appends a frame of at most SLOT_BYTES. False: full."""
    cdef uint32_t at = ring.producer
    cdef slot_t *slot
    if at - load_u32(&ring.consumer) >= ring.size:
        return False
    slot = spsc_slot(ring, at)
    slot.len = length
    slot.timestamp_ns = timestamp_ns
    memcpy(slot_data(slot), data, length)
    store_u32(&ring.producer, at + 1)
    return True
