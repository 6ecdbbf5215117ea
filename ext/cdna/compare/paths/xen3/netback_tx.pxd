"""Transmit side of netback: guests' requests to the bridge, and completed requests back to the guests."""

from libc.stdint cimport uint32_t

from cdna.compare.paths.xen3.netback cimport netback_t

# Takes requests, maps them, and hands their frames to the bridge. Returns requests taken.
cdef uint32_t net_tx_action(netback_t *nb) noexcept nogil
# Unmaps completed requests and answers them. Returns how many.
cdef uint32_t net_tx_action_dealloc(netback_t *nb) noexcept nogil
