"""The NIC's data path: doorbells, transmission, reception, interrupts; one round at a time."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport load_u32, sched_yield, store_u32, swap_u32
from cdna.nic.account cimport look_at_clocks
from cdna.nic.state cimport nic_t

# One round: doorbells, then up to `budget` frames each way, then interrupts. Returns frames moved.
cdef int engine_poll(nic_t *nic, int budget) noexcept nogil
# Rounds until nic.stop; stands still, with `paused` set, while nic.pause is set.
cdef void engine_run(nic_t *nic) noexcept nogil


cdef inline void paused_until_resumed(nic_t *nic) noexcept nogil:
    """The end of a pause in the loop's thread, `paused` being set: waits while somebody wants it."""
    while load_u32(&nic.pause) and not load_u32(&nic.stop):
        sched_yield()
    swap_u32(&nic.paused, 0)            # orders it before the next look at `pause`
    look_at_clocks(nic)


cdef inline bint stood_still(nic_t *nic) noexcept nogil:
    """Between two rounds: stands still while somebody wants it. Returns whether somebody did."""
    if not load_u32(&nic.pause):
        return False
    store_u32(&nic.paused, 1)
    paused_until_resumed(nic)
    return True
