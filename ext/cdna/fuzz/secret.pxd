"""What tells the bytes of attackers from those of everybody else.

Memory that no attacker owns holds secrets: words of which every byte has its top bit set, each word another.
Attackers own and write bytes without that bit only. So a foreign page that was written to differs from its
pattern, and a byte that was read there shows in the frame that carries it, wherever it went.

Attackers whose frames the NIC works on (checksums, segments, tags) get bytes of any kind from it, but never
sixteen of them in a row; of those a secret is that long.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE

cdef enum:
    PAGE_WORDS = PAGE_SIZE // 8


cdef inline uint64_t high_bits() noexcept nogil:
    return <uint64_t>0x8080808080808080


cdef inline uint64_t page_key(uint64_t maddr) noexcept nogil:
    return ((maddr >> PAGE_SHIFT) + 1) * <uint64_t>0x9E3779B97F4A7C15


cdef inline void fill_secret(uint8_t *at, uint64_t key, uint32_t words) noexcept nogil:
    cdef uint64_t *word = <uint64_t *>at
    cdef uint32_t i
    for i in range(words):
        word[i] = high_bits() | (key + i * <uint64_t>0x0101010101010103)


cdef inline bint holds_secret(const uint8_t *at, uint64_t key, uint32_t words) noexcept nogil:
    """Whether so many words are as `fill_secret` left them."""
    cdef const uint64_t *word = <const uint64_t *>at
    cdef uint64_t wrong = 0, wanted = key
    cdef uint32_t i
    for i in range(words):              # no way out of the loop: the compiler makes vectors of it
        wrong |= word[i] ^ (high_bits() | wanted)
        wanted += <uint64_t>0x0101010101010103
    return wrong == 0


cdef inline uint32_t bytes_changed(const uint8_t *at, uint64_t key, uint32_t words,
                                   uint32_t *first) noexcept nogil:
    """How many bytes are not as they were; `first`: the offset of the first of them."""
    cdef uint64_t word, wrong
    cdef uint32_t i, j, n = 0
    for i in range(words):
        memcpy(&word, at + 8 * i, 8)
        wrong = word ^ (high_bits() | (key + i * <uint64_t>0x0101010101010103))
        for j in range(8):
            if wrong >> 8 * j & 0xFF:
                if n == 0:
                    first[0] = 8 * i + j
                n += 1
    return n


cdef inline bint all_low(const uint8_t *at, uint32_t len) noexcept nogil:
    """Whether no byte has its top bit set."""
    cdef uint64_t bits = 0, word = 0
    cdef uint32_t i, words = len >> 3
    if len < 8:
        memcpy(&word, at, len)
        return word & high_bits() == 0
    for i in range(words):
        bits |= (<const uint64_t *>at)[i]
    memcpy(&word, at + len - 8, 8)
    return (bits | word) & high_bits() == 0


cdef inline bint has_secret(const uint8_t *at, uint32_t len) noexcept nogil:
    """Whether two words in a row, aligned in memory, have every top bit set."""
    cdef uint32_t skip = <uint32_t>(-<uintptr_t>at & 7), i, words, run = 0
    cdef uint64_t word
    if len < skip + 16:
        return False
    words = (len - skip) >> 3
    for i in range(words):
        word = (<const uint64_t *>(at + skip))[i]
        if word & high_bits() == high_bits() and word != ~<uint64_t>0:     # parts of broadcast addresses
            run += 1
            if run == 2:
                return True
        else:
            run = 0
    return False
