"""Transmit side of netfront."""

from libc.stdint cimport uint32_t

from cdna.compare.paths.xen3.netfront cimport netfront_t

# Takes responses (network_tx_buf_gc). Returns how many.
cdef uint32_t tx_buf_gc(netfront_t *nf) noexcept nogil
# Writes frames and requests until the ring is full (network_start_xmit). Returns frames.
cdef uint32_t tx_fill(netfront_t *nf) noexcept nogil
# Asks for an event when half of what is outstanding is answered. False: there are responses already.
cdef bint tx_wait(netfront_t *nf) noexcept nogil
