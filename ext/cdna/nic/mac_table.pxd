"""Tables of addresses, by which a frame's receiver is found: demux.pxd looks up, learn.pxd learns."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef enum:
    LEARNED = 64                # addresses that are learned behind one context, at most

cdef struct mac_entry_t:
    uint64_t key                # address with MAC_VALID set; 0: empty
    uint32_t context
    uint32_t reserved

cdef struct learned_t:          # an address that is not a context's own: see learn.pxd
    uint64_t key                # address and VLAN, with LEARNED_VALID set; 0: empty
    uint64_t seen               # cycle count when it was last a source address
    uint32_t context            # the one behind which it was seen first; it counts as one of its LEARNED
    uint16_t position           # in that context's `learned_at`
    uint16_t on_wire            # 1: seen on the wire since, so frames for it go there
