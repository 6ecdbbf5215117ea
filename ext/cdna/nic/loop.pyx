"""The NIC's sleeping loop: see loop.pxd."""
# build: unfuzzed

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.unistd cimport read

import os

from cdna.cpu cimport cycles, load_u32, lowest_bit, store_u32, swap_u32
from cdna.epoll cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_DEL, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait, precise_timers,
    spun_out, watch,
)
from cdna.nic.account cimport begin_time, count_bytes
from cdna.nic.context cimport RINGS_VIRTIO
from cdna.nic.device cimport Nic
from cdna.nic.engine cimport engine_poll, paused_until_resumed, stood_still
from cdna.nic.loop_events cimport WAKE, WIRE
from cdna.nic.moderation cimport moderate, moderation_init, timespec
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.notify cimport ask_all_for_kicks
from cdna.nic.wire cimport cycles_per_second

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_epoll_pwait2

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef enum:
    # Frames each way between two looks at the driver: few enough to stay in the cache, and a receive ring of
    # twice as many never runs out of buffers.
    ENGINE_BUDGET = 16
    ALONE_BUDGET = 256          # of the engine, where there is no driver
    ENGINE_ROUNDS = 32          # between two looks at the descriptors: a virtio guest may never stop sending
    EVENTS = 64
    MOVES = 3                   # of a frame from guest to guest: from a tap, by the engine, to a tap
    NAP_NS = 50_000             # while something may happen that no descriptor tells of


cdef void note(loop_t *loop, const epoll_event *event, int n) noexcept nogil:
    """Tells the driver which of its descriptors are ready."""
    cdef uint64_t count
    cdef uint32_t which
    cdef int i
    for i in range(n):
        which = event[i].data.u32
        if which == WAKE:
            read(loop.nic.wake_fd, &count, 8)
        elif which < WAKE and loop.driver != NULL:
            loop.driver.ready(loop.driver, which)


cdef int round_of(loop_t *loop) noexcept nogil:
    """One round. Returns frames moved."""
    cdef epoll_event event[EVENTS]
    cdef driver_in_loop_t *driver = loop.driver
    cdef int n, moved = 1, rounds = 0
    if driver == NULL:                  # the engine looks at rings and doorbells itself
        return engine_poll(loop.nic, ALONE_BUDGET)
    note(loop, event, epoll_wait(loop.epoll, event, EVENTS, 0))
    n = driver.to_nic(driver)
    while moved and rounds < ENGINE_ROUNDS and not load_u32(&loop.nic.pause):
        moved = engine_poll(loop.nic, ENGINE_BUDGET)
        rounds += 1
        n += moved
        n += driver.from_nic(driver)
    return n


cdef int other_contexts(const nic_t *nic) noexcept nogil:
    """Running contexts whose guests do not kick: they ring doorbells."""
    cdef uint32_t word
    cdef uint64_t bits
    cdef int n = 0
    for word in range(nic.words):
        bits = nic.running[word]
        while bits:
            n += nic.context[word * 64 + lowest_bit(bits)].rings != RINGS_VIRTIO
            bits &= bits - 1
    return n


cdef bint must_look(const loop_t *loop) noexcept nogil:
    """Whether something may be to do soon that no descriptor will tell of."""
    cdef const nic_t *nic = loop.nic
    cdef uint32_t word
    cdef int driven = 0
    if loop.needs_poll or nic.wire.tx_waiting or nic.txq_head != nic.txq_tail or nic.tso_context != NULL or \
            nic.flood.left or nic.rx_at != nic.rx_n:
        return True
    for word in range(nic.words):
        if nic.tx_active[word] or nic.unreported[word] or nic.updated[word] & nic.enabled[word]:
            return True
        if nic.virtio_used[word]:       # interrupts that moderation holds back
            return True
    if loop.driver != NULL:
        driven = loop.driver.drives(loop.driver)
        if driven < 0:
            return True
    return other_contexts(nic) > driven + <int>loop.wakers     # the others' drivers wake nobody


cdef void sleep_until_woken(loop_t *loop) noexcept nogil:
    """Sleeps until a descriptor is ready, or for a nap. The engine counts as paused meanwhile."""
    cdef nic_t *nic = loop.nic
    cdef epoll_event event[EVENTS]
    cdef timespec nap
    cdef int n = 0
    cdef bint look
    nap.tv_sec = 0
    nap.tv_nsec = NAP_NS
    look = ask_all_for_kicks(nic, True) or must_look(loop)
    swap_u32(&nic.paused, 1)
    if not load_u32(&nic.pause) and not load_u32(&nic.stop):
        n = <int>syscall(SYS_epoll_pwait2, loop.epoll, event, <int>EVENTS, &nap if look else NULL, NULL,
                         <size_t>0)
    paused_until_resumed(nic)
    ask_all_for_kicks(nic, False)
    if not load_u32(&nic.pause):
        note(loop, event, n)
    elif loop.driver != NULL:           # it may be changing: the events are not what they were
        loop.driver.rescan(loop.driver)


cdef void loop_run(loop_t *loop) noexcept nogil:
    cdef nic_t *nic = loop.nic
    cdef uint64_t idle_since = 0
    cdef int moved
    precise_timers()
    begin_time(nic)
    store_u32(&nic.alive, 1)
    while not load_u32(&nic.stop):
        if stood_still(nic):
            continue
        moved = round_of(loop)
        if moved:
            idle_since = 0
            moderate(&loop.moderation, moved // MOVES)
            continue
        if spun_out(&idle_since, loop.spin_cycles):
            sleep_until_woken(loop)
            idle_since = cycles()
    store_u32(&nic.alive, 0)
    count_bytes(nic)


cdef class SleepingLoop:
    """Runs a NIC in a thread that sleeps while there is nothing to do: `nic.start_engine(loop=loop.run)`.

    spin_us: microseconds without a frame after which the loop sleeps; -1: it never does.
    """

    def __cinit__(self):
        self.c.epoll = -1

    def __init__(self, Nic nic, *, spin_us=1000.0):
        self.nic = nic
        self.c.nic = nic.c
        self.c.spin_cycles = -1 if spin_us < 0 else <int64_t>(spin_us * 1e-6 * cycles_per_second())
        moderation_init(&self.c.moderation)
        self.c.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.c.epoll < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        nic.c.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.add_watch(nic.c.wake_fd, WAKE, EPOLLIN)
        nic.c.epoll_fd = self.c.epoll       # virtio devices add their kicks
        self.c.needs_poll = nic.wire.needs_poll
        for fd in nic.wire.wait_fds:
            self.add_watch(fd, WIRE, EPOLLIN)

    cdef int add_watch(self, int fd, uint32_t which, uint32_t events) except -1:
        if watch(self.c.epoll, fd, which, events) < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        return 0

    cdef void drop_watch(self, int fd) noexcept:
        epoll_ctl(self.c.epoll, EPOLL_CTL_DEL, fd, NULL)

    cdef void share(self, driver_in_loop_t *driver, owner) noexcept:
        self.c.driver = driver
        self._driver = owner

    def add_wakers(self, int number) -> None:
        """So many more drivers of this process call `Nic.wake` after their doorbells; below 0: fewer.

        For the sake of the others, which do not, the loop only naps.
        """
        with self.nic.quiesced():
            self.c.wakers += number

    def run(self):
        """The loop, until `Nic.request_stop`."""
        with nogil:
            loop_run(&self.c)

    def close(self):
        """Gives the descriptors back, once the loop has ended. Closing twice is harmless."""
        cdef int epoll = self.c.epoll, wake_fd
        if epoll >= 0:
            wake_fd = self.nic.c.wake_fd
            self.c.epoll = self.nic.c.wake_fd = self.nic.c.epoll_fd = -1
            os.close(epoll)
            os.close(wake_fd)
            self.share(NULL, None)
