"""Identifications of IPv6 fragments: none comes twice in 2**32, and none is to be guessed (RFC 7739).

    n-th identification = Speck32/64 of the first counter value + n, under the NIC's secret key

Fragments of two datagrams with one identification are put together wrong; so a counter. An attacker who knows
the next value sends fragments of its own into another's datagrams, and who sees a counter sees how much the
others send; so a cipher, whose key and first value come from the kernel (`os.urandom`) when the NIC is made.
A permutation keeps distinct what was distinct, which a hash or a random number of 32 bits would not.

Speck32/64: R. Beaulieu et al., The SIMON and SPECK Families of Lightweight Block Ciphers, 2013
(https://eprint.iacr.org/2013/404), section 4. Words of 16 bits, and few of them: that costs some 50 ns.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

cdef enum:
    SPECK_ROUNDS = 22
    FRAGMENT_SECRET = 12        # bytes: a key of 8, and the first value of the counter

cdef struct fragment_ids_t:
    uint16_t key[SPECK_ROUNDS]  # of each round
    uint32_t counter


cdef inline uint16_t mix(uint16_t x, uint16_t y, uint16_t key) noexcept nogil:
    """A round's new x; its new y is `spread(y)` combined with that."""
    return <uint16_t>((<uint16_t>(x >> 7 | x << 9) + y) ^ key)


cdef inline uint16_t spread(uint16_t y) noexcept nogil:
    return <uint16_t>(y << 2 | y >> 14)


cdef inline void begin_fragment_ids(fragment_ids_t *ids, const uint8_t *secret) noexcept nogil:
    """Begins a sequence that FRAGMENT_SECRET bytes tell; numbers in them are little-endian."""
    cdef uint16_t words[4]
    cdef int i
    memcpy(words, secret, sizeof(words))
    memcpy(&ids.counter, secret + sizeof(words), sizeof(ids.counter))
    ids.key[0] = words[0]
    for i in range(SPECK_ROUNDS - 1):
        words[1 + i % 3] = mix(words[1 + i % 3], ids.key[i], i)
        ids.key[i + 1] = spread(ids.key[i]) ^ words[1 + i % 3]


cdef inline uint32_t next_fragment_id(fragment_ids_t *ids) noexcept nogil:
    cdef uint16_t x = ids.counter >> 16, y = ids.counter & 0xFFFF
    cdef int i
    for i in range(SPECK_ROUNDS):
        x = mix(x, y, ids.key[i])
        y = spread(y) ^ x
    ids.counter += 1
    return <uint32_t>x << 16 | y
