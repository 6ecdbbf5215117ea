"""The bridge's slow paths."""

from libc.string cimport memset


cdef void bridge_init(bridge_t *bridge, fdb_entry_t *entry, uint32_t entries, uint32_t ports,
                      uint64_t ageing) noexcept nogil:
    cdef uint32_t i
    memset(bridge, 0, sizeof(bridge_t))
    memset(bridge.bucket, 0xFF, sizeof(bridge.bucket))
    bridge.entry = entry
    bridge.entries = entries
    bridge.ports = ports
    bridge.ageing = ageing
    for i in range(entries):
        entry[i].next = i + 1 if i + 1 < entries else <uint32_t>NO_FDB
    bridge.free = 0 if entries else <uint32_t>NO_FDB


cdef bint bridge_add(bridge_t *bridge, uint64_t mac, uint32_t port, uint64_t now,
                     bint is_static) noexcept nogil:
    cdef uint32_t i, bucket = fdb_hash(mac)
    if bridge.free == NO_FDB and bridge_age(bridge, now) == 0:
        return False
    i = bridge.free
    bridge.free = bridge.entry[i].next
    bridge.entry[i].mac = mac
    bridge.entry[i].port = port
    bridge.entry[i].updated = now
    bridge.entry[i].is_static = is_static
    bridge.entry[i].next = bridge.bucket[bucket]
    bridge.bucket[bucket] = i
    bridge.used += 1
    return True


cdef uint32_t bridge_age(bridge_t *bridge, uint64_t now) noexcept nogil:
    cdef uint32_t bucket, i, freed = 0
    cdef uint32_t *link
    for bucket in range(FDB_BUCKETS):
        link = &bridge.bucket[bucket]
        while link[0] != NO_FDB:
            i = link[0]
            if not bridge.entry[i].is_static and now - bridge.entry[i].updated > bridge.ageing:
                link[0] = bridge.entry[i].next
                bridge.entry[i].next = bridge.free
                bridge.free = i
                freed += 1
            else:
                link = &bridge.entry[i].next
    bridge.used -= freed
    return freed
