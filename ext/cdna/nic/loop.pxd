"""The NIC's sleeping loop, and what a driver in the same thread is to it.

One thread runs rounds. After `spin_cycles` without a frame it sleeps, until a descriptor is ready:

                          no frame for spin_cycles
    spinning: rounds  ------------------------------->  asleep, which counts as standing still
        ^                                                 |
        +-------------------------------------------------+
          a kick, the wire, the driver, `Nic.wake`; or a nap's end, where no descriptor would tell

A driver whose frames come by descriptors (taps) shares the thread: with the engine on a core of its own the
programs would have one core less, and every frame would cross between caches twice. Its functions are called
in the loop's thread, between two rounds of the engine, and never while the engine stands still for somebody.
"""

from libc.stdint cimport int64_t, uint32_t

from cdna.nic.device cimport Nic
from cdna.nic.moderation cimport moderation_t
from cdna.nic.state cimport nic_t

# A driver that shares the loop's thread; the owner's own state follows behind, as with a `wire_t`.
cdef struct driver_in_loop_t:
    # Moves frames from its descriptors to contexts, and from contexts to its descriptors; returns how many.
    int (*to_nic)(driver_in_loop_t *self) noexcept nogil
    int (*from_nic)(driver_in_loop_t *self) noexcept nogil
    # A descriptor is ready: `which` is the number it was watched by.
    void (*ready)(driver_in_loop_t *self, uint32_t which) noexcept nogil
    # Any descriptor may be ready: events were lost.
    void (*rescan)(driver_in_loop_t *self) noexcept nogil
    # Running contexts that it drives; below 0: it has frames that found no room, and must be called soon.
    int (*drives)(const driver_in_loop_t *self) noexcept nogil

cdef struct loop_t:
    nic_t *nic
    driver_in_loop_t *driver    # or NULL
    uint32_t wakers             # native contexts of other threads, whose drivers call Nic.wake
    int epoll
    uint32_t needs_poll         # the wire may deliver without a descriptor that says so
    moderation_t moderation
    int64_t spin_cycles         # how long the loop spins before it sleeps; below 0: always


cdef class SleepingLoop:
    cdef loop_t c
    cdef readonly Nic nic
    cdef object _driver         # the owner of c.driver, kept alive
    # Watches a descriptor for the driver, under a number below WAKE.
    cdef int add_watch(self, int fd, uint32_t which, uint32_t events) except -1
    cdef void drop_watch(self, int fd) noexcept
    # Shares the thread with a driver from now on; NULL: no more. The engine stands still.
    cdef void share(self, driver_in_loop_t *driver, owner) noexcept
