"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng), written one behind the other into a buffer.

Everything is little-endian and a multiple of 4 bytes. A packet, an Enhanced Packet Block:

    0      4       8           12           16          20       24    28
    +------+-------+-----------+------------+-----------+--------+-----+--- ... ---+---------+-------+
    | type | total | interface | stamp, top | stamp low | caplen | len | the frame | options | total |
    +------+-------+-----------+------------+-----------+--------+-----+--- ... ---+---------+-------+
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    PCAPNG_SHB = 0x0A0D0D0A     # Section Header Block
    PCAPNG_IDB = 1              # Interface Description Block
    PCAPNG_ISB = 5              # Interface Statistics Block
    PCAPNG_EPB = 6              # Enhanced Packet Block
    PCAPNG_EPB_HEADER = 28      # bytes before the frame

cdef enum:                      # epb_flags
    EPB_INBOUND = 1
    EPB_OUTBOUND = 2

cdef struct pcapng_t:
    uint8_t *buffer
    size_t used                 # bytes
    size_t size

cdef class PcapngWriter:
    cdef pcapng_t c
    cdef readonly int interfaces
    cdef int _exports           # memoryviews of the buffer: nothing is written meanwhile


cdef inline uint8_t *put_u32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)
    return at + 4


cdef inline bint put_packet(pcapng_t *to, uint32_t interface, uint64_t stamp_ns, const uint8_t *data,
                            uint32_t caplen, uint32_t length, const uint8_t *options,
                            uint32_t options_len) noexcept nogil:
    """Appends a packet of `caplen` of `length` bytes; `options` are whole. False: the buffer has no room."""
    cdef uint32_t pad = -caplen & 3, total = PCAPNG_EPB_HEADER + caplen + pad + options_len + 4
    cdef uint8_t *at = to.buffer + to.used
    if total > to.size - to.used:
        return False
    at = put_u32(at, PCAPNG_EPB)
    at = put_u32(at, total)
    at = put_u32(at, interface)
    at = put_u32(at, <uint32_t>(stamp_ns >> 32))
    at = put_u32(at, <uint32_t>stamp_ns)
    at = put_u32(at, caplen)
    at = put_u32(at, length)
    memcpy(at, data, caplen)
    memset(at + caplen, 0, pad)
    memcpy(at + caplen + pad, options, options_len)
    put_u32(at + caplen + pad + options_len, total)
    to.used += total
    return True
