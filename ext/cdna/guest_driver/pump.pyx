"""The pump: one thread that runs the NIC and is the driver of every namespace guest.

A namespace guest is a Linux network stack behind a tap. Its driver reads frames from the tap straight into
transmit buffers of the guest's memory and posts them as any driver does, validated by the VMM; what the NIC
puts into its receive buffers it writes to the tap. Both carry the virtio-net header, so checksums are never
computed and large segments never cut between guests that share a NIC.

One thread and not two: with the engine on a core of its own the programs would have one core less, and every
frame would cross between caches twice. A round is

    taps that have frames -> contexts -> engine_poll -> contexts -> taps

and after rounds without a frame the thread spins for a while, then sleeps until a tap, the wire or Python
wakes it. Asleep it counts as standing still (`Nic.quiesced`).
"""
# build: unfuzzed

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport read

import os

from cdna.abi cimport CONTEXT_RUNNING
from cdna.cpu cimport cycles, load_u32, lowest_bit, store_u32, swap_u32
from cdna.epoll cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, epoll_create1, epoll_ctl, epoll_event,
    epoll_wait, precise_timers, spun_out, watch,
)
from cdna.guest_driver.moderation cimport moderate, moderation_init, timespec
from cdna.guest_driver.queues cimport Queues
from cdna.guest_driver.tap_port cimport MIN_BUFFER, from_tap, port_t, to_tap
from cdna.nic.context cimport nic_t
from cdna.nic.device cimport Nic
from cdna.nic.engine cimport engine_poll, paused_until_resumed, stood_still
from cdna.nic.virtio_signal cimport ask_all_for_kicks
from cdna.nic.wire cimport cycles_per_second

from cdna.errors import ConfigError
from cdna.nic.tap import set_carrier

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_epoll_pwait2

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef enum:
    # Frames each way between two looks at the ports: few enough to stay in the cache, and a receive ring of
    # twice as many never runs out of buffers.
    ENGINE_BUDGET = 16
    ALONE_BUDGET = 64           # of the engine, where there are no taps
    ENGINE_ROUNDS = 32          # between two looks at the taps: a virtio guest may never stop sending
    EVENTS = 64
    MOVES = 3                   # of a frame from guest to guest: from a tap, by the engine, to a tap
    NAP_NS = 50_000             # while something may happen that no descriptor tells of
    WAKE = 1 << 30              # event of the wake descriptor; below are ports
    WIRE = WAKE + 1             # event of a descriptor of the wire


# --- the loop ---------------------------------------------------------------------------------------------

cdef void note(pump_t *pump, const epoll_event *event, int n) noexcept nogil:
    """Remembers which taps have frames."""
    cdef uint64_t count
    cdef uint32_t which
    cdef int i
    for i in range(n):
        which = event[i].data.u32
        if which == WAKE:
            read(pump.nic.wake_fd, &count, 8)
        elif which < pump.ports:
            pump.port[which].readable = 1


cdef int round_of(pump_t *pump) noexcept nogil:
    """One round. Returns frames moved."""
    cdef epoll_event event[EVENTS]
    cdef port_t *port
    cdef uint32_t i
    cdef int n = 0, moved, rounds = 0
    if pump.used_ports == 0:            # the engine looks at rings and doorbells itself
        return engine_poll(pump.nic, ALONE_BUDGET)
    note(pump, event, epoll_wait(pump.epoll, event, EVENTS, 0))
    if pump.rescan:
        pump.rescan = 0
        for i in range(pump.ports):
            pump.port[i].readable = 1
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.readable and port.driver != NULL:
            n += from_tap(port)
    moved = 1
    while moved and rounds < ENGINE_ROUNDS and not load_u32(&pump.nic.pause):
        moved = engine_poll(pump.nic, ENGINE_BUDGET)
        rounds += 1
        n += moved
        for i in range(pump.ports):
            port = &pump.port[i]
            if port.driver != NULL:
                n += to_tap(port)
    return n


cdef uint32_t native_contexts(const nic_t *nic) noexcept nogil:
    """Running contexts whose guests ring doorbells; a virtio guest kicks."""
    cdef uint32_t word, n = 0
    cdef uint64_t bits
    for word in range(nic.words):
        bits = nic.running[word]
        while bits:
            n += nic.context[word * 64 + lowest_bit(bits)].virtio == NULL
            bits &= bits - 1
    return n


cdef bint must_look(const pump_t *pump) noexcept nogil:
    """Whether something may be to do soon that no descriptor will tell of."""
    cdef const nic_t *nic = pump.nic
    cdef const port_t *port
    cdef uint32_t served = pump.wakers, word, i
    if pump.needs_poll or nic.wire.tx_waiting or nic.txq_head != nic.txq_tail or nic.tso_context != NULL:
        return True
    for word in range(nic.words):
        if nic.tx_active[word] or nic.unreported[word] or nic.updated[word] & nic.enabled[word]:
            return True
        if nic.virtio_used[word]:       # interrupts that moderation holds back
            return True
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.driver == NULL or nic.context[port.driver.context].state != CONTEXT_RUNNING:
            continue
        if port.readable:               # its ring is full, and its tap's event is past
            return True
        served += 1
    return native_contexts(nic) > served       # the others' drivers ring doorbells, and wake nobody


cdef void sleep_until_woken(pump_t *pump) noexcept nogil:
    """Sleeps until a descriptor is ready, or for a nap. The engine counts as paused meanwhile."""
    cdef nic_t *nic = pump.nic
    cdef epoll_event event[EVENTS]
    cdef timespec nap
    cdef int n = 0
    cdef bint look
    nap.tv_sec = 0
    nap.tv_nsec = NAP_NS
    look = ask_all_for_kicks(nic, True) or must_look(pump)
    swap_u32(&nic.paused, 1)
    if not load_u32(&nic.pause) and not load_u32(&nic.stop):
        n = <int>syscall(SYS_epoll_pwait2, pump.epoll, event, <int>EVENTS, &nap if look else NULL, NULL,
                         <size_t>0)
    paused_until_resumed(nic)
    ask_all_for_kicks(nic, False)
    if load_u32(&nic.pause):
        pump.rescan = 1                 # ports may be changing: the events are not what they were
    else:
        note(pump, event, n)


cdef void pump_run(pump_t *pump) noexcept nogil:
    cdef nic_t *nic = pump.nic
    cdef uint64_t idle_since = 0
    cdef int moved
    precise_timers()
    store_u32(&nic.alive, 1)
    while not load_u32(&nic.stop):
        if stood_still(nic):
            continue
        moved = round_of(pump)
        if moved:
            idle_since = 0
            moderate(&pump.moderation, moved // MOVES)
            continue
        if spun_out(&idle_since, pump.spin_cycles):
            sleep_until_woken(pump)
            idle_since = cycles()
    store_u32(&nic.alive, 0)


# --- control ----------------------------------------------------------------------------------------------

cdef class Pump:
    """Runs a NIC and moves the frames of namespace guests: `nic.start_engine(loop=pump.run)`.

    spin_us: microseconds without a frame after which the loop sleeps; -1: it never does.
    """

    cdef pump_t c
    cdef Nic nic
    cdef dict drivers           # by port: kept alive while the loop uses them

    def __cinit__(self):
        self.c.epoll = -1

    def __init__(self, Nic nic, *, spin_us=1000.0):
        self.nic = nic
        self.drivers = {}
        self.c.nic = nic.c
        self.c.spin_cycles = -1 if spin_us < 0 else <int64_t>(spin_us * 1e-6 * cycles_per_second())
        moderation_init(&self.c.moderation)
        self.c.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.c.epoll < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        nic.c.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watch(nic.c.wake_fd, WAKE, EPOLLIN)
        nic.c.epoll_fd = self.c.epoll       # virtio devices add their kicks
        self.c.needs_poll = nic.wire.needs_poll
        for fd in nic.wire.wait_fds:
            self._watch(fd, WIRE, EPOLLIN)

    cdef int _watch(self, int fd, uint32_t which, uint32_t events) except -1:
        if watch(self.c.epoll, fd, which, events) < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        return 0

    def add(self, Queues driver, int tap_fd) -> int:
        """Connects a tap and a driver, from now on driven by the loop alone. Returns the port's number.

        tap_fd: nonblocking, with a virtio-net header of 12 bytes; the caller closes it, after `remove`.
        ConfigError: the context's frames have no such header, or its buffers are too small.
        """
        if not driver.vnet_header:
            raise ConfigError("the context of a tap: assign it with vnet_header=True")
        if driver.c.buffer_size < MIN_BUFFER:
            raise ConfigError(
                f"buffers of {driver.c.buffer_size} bytes for a tap: give {<int>MIN_BUFFER} or more")
        cdef uint32_t number
        with self.nic.quiesced():
            number = self._free_port()
            memset(&self.c.port[number], 0, sizeof(port_t))
            self._watch(tap_fd, number, EPOLLIN | EPOLLET)
            self.c.port[number].fd = tap_fd
            self.c.port[number].link = 1
            self.c.port[number].joins = 1
            self.c.port[number].readable = 1
            self.c.port[number].driver = &driver.c
            self.drivers[number] = driver
            self.c.used_ports = len(self.drivers)
        return number

    cdef uint32_t _free_port(self) except? 0xFFFFFFFF:
        cdef uint32_t number
        cdef void *more
        for number in range(self.c.ports):
            if self.c.port[number].driver == NULL:
                return number
        more = PyMem_Realloc(self.c.port, (self.c.ports + 1) * sizeof(port_t))
        if more == NULL:
            raise MemoryError
        self.c.port = <port_t *>more
        self.c.ports += 1
        memset(&self.c.port[self.c.ports - 1], 0, sizeof(port_t))
        return self.c.ports - 1

    def remove(self, uint32_t number):
        """Disconnects a port: before its context is revoked, and its tap closed."""
        cdef port_t *port
        with self.nic.quiesced():
            port = self._port(number)       # which `add` may move
            epoll_ctl(self.c.epoll, EPOLL_CTL_DEL, port.fd, NULL)
            port.driver = NULL
            del self.drivers[number]
            self.c.used_ports = len(self.drivers)

    cdef port_t *_port(self, uint32_t number) except NULL:
        if number not in self.drivers:
            raise ConfigError(f"port {number}: give one that `add` returned")
        return &self.c.port[number]

    def add_wakers(self, int number) -> None:
        """So many more drivers of this process call `Nic.wake` after their doorbells; below 0: fewer.

        For the sake of the others, which do not, the loop only naps.
        """
        with self.nic.quiesced():
            self.c.wakers += number

    def set_link(self, uint32_t number, bint up):
        """Plugs the guest's cable in or out: its device shows the carrier, and frames to it are lost."""
        set_carrier(self._port(number).fd, up)
        store_u32(&self._port(number).link, up)

    def set_gro(self, uint32_t number, bint on):
        """Joins UDP datagrams of one flow in front of the guest's device (udp_gro.pxd), or not."""
        store_u32(&self._port(number).gro, on)

    def stats(self, uint32_t number) -> dict:
        """Frames of a port: from_tap, to_tap, lost_from_tap, lost_to_tap, lost_to_link."""
        cdef port_t *port = self._port(number)
        return {"from_tap": port.from_tap, "to_tap": port.to_tap, "lost_from_tap": port.lost_from_tap,
                "lost_to_tap": port.lost_to_tap, "lost_to_link": port.lost_to_link}

    def run(self):
        """The loop, until `Nic.request_stop`."""
        with nogil:
            pump_run(&self.c)

    def close(self):
        """Gives the descriptors back, once the loop has ended. Closing twice is harmless."""
        cdef int epoll = self.c.epoll, wake_fd
        if epoll >= 0:
            wake_fd = self.nic.c.wake_fd
            self.c.epoll = self.nic.c.wake_fd = self.nic.c.epoll_fd = -1
            os.close(epoll)
            os.close(wake_fd)
            self.drivers.clear()

    def __dealloc__(self):
        PyMem_Free(self.c.port)
