"""Receive side of netfront."""

from libc.stdint cimport uint32_t

from cdna.compare.paths.xen3.netfront cimport netfront_t

# Takes responses and checks their frames (netif_poll). Returns responses taken.
cdef uint32_t rx_poll(netfront_t *nf) noexcept nogil
# Grants pages and posts requests (network_alloc_rx_buffers). Returns requests posted.
cdef uint32_t rx_alloc(netfront_t *nf) noexcept nogil
