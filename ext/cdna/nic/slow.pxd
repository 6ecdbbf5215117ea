"""When a guest makes the NIC's thread slow: from when on, and for how long, a second thread does its work.

Work that may take some time now and then takes longer for no fault of the guest: by an interrupt, or a cold
cache. So what it takes beyond is added up, and what it takes less is taken off.
"""

from libc.stdint cimport uint64_t

cdef enum:
    SLOW_FOR = 100              # times what was too long: to notice it again takes 1 % of the thread at most


cdef inline bint goes_beyond(uint64_t *excess, uint64_t spent, uint64_t due, uint64_t allowed) noexcept nogil:
    """Adds work that took `spent` cycles and may take `due`. Returns whether `excess` is too much now."""
    if spent <= due:
        excess[0] -= due - spent if due - spent < excess[0] else excess[0]
        return False
    excess[0] += spent - due
    return excess[0] >= allowed
