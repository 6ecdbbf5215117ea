"""Frames of attackers: the first bytes, with which the NIC decides, and the work that they ask for."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.fuzz.arena cimport LOOSE_KIND, NEIGHBOUR_KIND, STRICT_KIND, WIRE_KIND, arena_t


cdef inline uint64_t some_mac(const arena_t *arena, bint loose, bint multicast, uint64_t bits) noexcept nogil:
    """To whom a frame goes: a neighbour, another attacker, the wire, many."""
    cdef uint32_t kind = WIRE_KIND, number = <uint32_t>(bits >> 8 & 15)
    if bits & 7 == 0:
        kind, number = NEIGHBOUR_KIND, number % 3
    elif bits & 7 < 3:
        kind, number = LOOSE_KIND if loose else STRICT_KIND, number % (arena.wire_attackers + 1)
    elif bits & 0xFF == 7 and loose:
        return <uint64_t>0xFFFFFFFFFFFF
    elif bits & 0xFF == 7 and multicast:
        return <uint64_t>0x0100005E0001         # 01:00:5e:00:00:01
    return <uint64_t>2 | <uint64_t>kind << 32 | <uint64_t>number << 40


cdef inline void write_ip(uint8_t *at, uint64_t bits) noexcept nogil:
    """IPv4 and TCP or UDP headers behind an Ethernet header, with a lie now and then."""
    memset(at, 0, 40)
    at[0] = 0x45 if bits & 15 else <uint8_t>(bits >> 8)
    at[2], at[3] = <uint8_t>(bits >> 16 & 7), <uint8_t>(bits >> 24)
    at[8] = 64
    at[9] = 6 if bits & 16 else 17
    at[32] = 0x50 if bits & 0xE0 else <uint8_t>(bits >> 32)


cdef inline void write_frame(const arena_t *arena, uint64_t mac, bint loose, bint multicast, uint8_t *at,
                             uint64_t bits) noexcept nogil:
    """Addresses, the source sometimes somebody else's, and what is above them. To 54 bytes."""
    cdef uint64_t to = some_mac(arena, loose, multicast, bits >> 20), source = mac, first
    if bits & 0x1F000 == 0:
        source = bits & <uint64_t>0x7F7F7F7F7F7F
        if bits >> 41 & 1:
            source = arena.neighbour[bits >> 40 & 1].mac
    first = to | source << 48
    memcpy(at, &first, 8)
    first = source >> 16
    memcpy(at + 8, &first, 4)
    at[12], at[13] = 0x08, 0x00
    if not loose:
        return
    if bits & 0x1E0000 == 0:            # a tag that it may not send
        at[12], at[13] = 0x81, 0x00
    else:
        write_ip(at + 14, bits >> 4)


cdef inline void write_work(uint8_t *at, uint32_t header, uint64_t bits) noexcept nogil:
    """A virtio-net header: none to do, most often; a checksum, segments, or what cannot be."""
    cdef uint64_t first
    memset(at, 0, header)
    if bits & 0x7E00:
        return
    first = bits >> 24
    memcpy(at, &first, 5)
    at[0] = <uint8_t>(bits >> 15 & 3)
    at[1] = <uint8_t>(bits >> 50 & 7)
    at[4], at[5] = <uint8_t>(bits >> 16), <uint8_t>(bits >> 30 & 3)
    at[6], at[7], at[8], at[9] = 34, 0, 16 if bits & 1 << 22 else 6, 0


cdef inline void write_nonsense(uint8_t *at, uint32_t header) noexcept nogil:
    """A virtio-net header of low bytes that asks for what cannot be: a checksum far behind the frame."""
    memset(at, 0, header)
    at[0] = 1
    at[6], at[7] = 0x7F, 0x7F
