"""A learning bridge, as Linux's: a forwarding database by MAC address, with ports and ages.

A frame teaches the bridge its source's port; its destination is looked up; unknown and multicast ones are
flooded. Entries hang in hash buckets, 256 of them as in Linux 2.6 (net/bridge/br_fdb.c), and an entry that
was not refreshed for the ageing time (300 s there) is not used. Spanning tree and netfilter are left out.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from cdna.memory cimport SharedRegion

cdef enum:
    FDB_BUCKETS = 256
    NO_FDB = 0xFFFFFFFF
    FLOOD = 0xFFFF                  # bridge_lookup: to every port but the one it came in by
    MULTICAST_MAC = 1               # bit of a MAC address in the low 48 bits of a little-endian word

cdef struct fdb_entry_t:
    uint64_t mac
    uint64_t updated                # time of the last frame from it
    uint32_t next                   # in the bucket, or NO_FDB
    uint16_t port
    uint16_t is_static              # never ages
    uint64_t reserved

cdef struct bridge_t:
    uint32_t bucket[256]            # first entry, or NO_FDB
    fdb_entry_t *entry
    uint32_t entries
    uint32_t free                   # first free entry, or NO_FDB
    uint32_t used
    uint32_t ports
    uint64_t ageing                 # in units of the caller's clock
    uint64_t moved                  # a known address came in by another port
    uint64_t flooded
    uint64_t forwarded
    uint64_t not_forwarded          # the destination is behind the port it came in by

cdef void bridge_init(bridge_t *bridge, fdb_entry_t *entry, uint32_t entries, uint32_t ports,
                      uint64_t ageing) noexcept nogil
# An address that was not known: takes a free entry, or one that has aged. False: the database is full.
cdef bint bridge_add(bridge_t *bridge, uint64_t mac, uint32_t port, uint64_t now,
                     bint is_static) noexcept nogil
# Frees what has aged; returns how many.
cdef uint32_t bridge_age(bridge_t *bridge, uint64_t now) noexcept nogil


cdef inline uint32_t fdb_hash(uint64_t mac) noexcept nogil:
    return <uint32_t>(mac * <uint64_t>0x9E3779B97F4A7C15 >> 56)


cdef inline fdb_entry_t *fdb_find(bridge_t *bridge, uint64_t mac) noexcept nogil:
    cdef uint32_t i = bridge.bucket[fdb_hash(mac)]
    while i != NO_FDB:
        if bridge.entry[i].mac == mac:
            return &bridge.entry[i]
        i = bridge.entry[i].next
    return NULL


cdef inline void bridge_learn(bridge_t *bridge, uint64_t src, uint32_t port, uint64_t now) noexcept nogil:
    """What br_fdb_update does with the source address of a frame from `port`."""
    cdef fdb_entry_t *entry
    if src & MULTICAST_MAC:
        return
    entry = fdb_find(bridge, src)
    if entry == NULL:
        bridge_add(bridge, src, port, now, False)
    elif not entry.is_static:
        if entry.port != port:
            entry.port = port
            bridge.moved += 1
        entry.updated = now


cdef inline uint32_t bridge_lookup(bridge_t *bridge, uint64_t dst, uint64_t now) noexcept nogil:
    """The port behind which `dst` was last seen, or FLOOD."""
    cdef fdb_entry_t *entry
    if dst & MULTICAST_MAC:
        return FLOOD
    entry = fdb_find(bridge, dst)
    if entry == NULL or not entry.is_static and now - entry.updated > bridge.ageing:
        return FLOOD
    return entry.port
