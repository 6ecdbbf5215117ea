"""The Internet checksum (RFC 1071), and words in network order at any alignment."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t ntohs(uint16_t value)
    uint16_t htons(uint16_t value)
    uint32_t ntohl(uint32_t value)
    uint32_t htonl(uint32_t value)


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
