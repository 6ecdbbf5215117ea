"""The NIC's data path: doorbells, transmission, reception, interrupts; one round at a time."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.nic.context cimport nic_t

# One round: doorbells, then up to `budget` frames each way, then interrupts. Returns frames moved.
cdef int engine_poll(nic_t *nic, int budget) noexcept nogil
# Rounds until nic.stop; stands still, with `paused` set, while nic.pause is set.
cdef void engine_run(nic_t *nic) noexcept nogil
