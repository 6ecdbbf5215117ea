"""Receive side of netback: frames that the bridge sent to a guest, into the guest's pages."""

from libc.stdint cimport uint32_t

from cdna.compare.paths.xen3.netback cimport netback_t

# Frames given to guests, by copy or by transfer of pages.
cdef uint32_t net_rx_action(netback_t *nb) noexcept nogil
