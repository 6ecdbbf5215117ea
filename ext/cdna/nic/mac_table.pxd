"""Tables of addresses, by which a frame's receiver is found: demux.pxd looks up, learn.pxd learns.

The same address in two VLANs is two stations (IEEE 802.1Q, 8.8), so the key of each entry is both of them:

     63            48 47                            0
    +----------------+-------------------------------+
    | VLAN, KEY_VALID|           address             |
    +----------------+-------------------------------+
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef enum:
    LEARNED = 64                # addresses that are learned behind one context, at most
    VLAN_SHIFT = 48
    KEY_VALID = 0x1000000000000000      # set in all keys, so that 0 is an empty entry; no VLAN has this bit

cdef struct mac_entry_t:
    uint64_t key                # address and VLAN, or VLAN_TRUNK: the address is a trunk's, in every VLAN
    uint32_t context
    uint32_t reserved

cdef struct learned_t:          # an address that is not a context's own: see learn.pxd
    uint64_t key                # address and VLAN
    uint64_t seen               # cycle count when it was last a source address
    uint32_t context            # the one behind which it was seen first; it counts as one of its LEARNED
    uint16_t position           # in that context's `learned_at`
    uint16_t on_wire            # 1: seen on the wire since, so frames for it go there


cdef inline uint64_t address_key(uint64_t mac, uint32_t vid) noexcept nogil:
    return mac | <uint64_t>vid << VLAN_SHIFT | KEY_VALID
