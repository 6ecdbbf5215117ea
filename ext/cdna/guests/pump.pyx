"""The pump: the driver of every namespace guest, in the thread of the NIC's loop.

A namespace guest is a Linux network stack behind a tap. Its driver reads frames from the tap straight into
transmit buffers of the guest's memory and posts them as any driver does, validated by the VMM; what the NIC
puts into its receive buffers it writes to the tap. Both carry the virtio-net header, so checksums are never
computed and large segments never cut between guests that share a NIC. A round is

    taps that have frames -> contexts -> rounds of the engine -> contexts -> taps

A port whose writes take long, since its stack makes much of each frame, has them made by a second thread.
"""
# build: unfuzzed

import threading

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from cdna.abi cimport CONTEXT_RUNNING
from cdna.cpu cimport (
    add_u32, cycles, futex_wait, futex_wake, load_u32, store_u32, store_u64, swap_u32, thread_ns, unlikely,
)
from cdna.epoll cimport EPOLLET, EPOLLIN
from cdna.guest_driver.queues cimport Queues, rx_ready
from cdna.guests.slow_tap cimport (
    ALLOWED_NS, SLOW_WRITE_NS, hand_over, handed_over, has_frame, judge, take_back, turned_fast, write_next,
)
from cdna.guests.tap_port cimport BUDGET, MIN_BUFFER, from_tap, handed_t, port_t, to_tap
from cdna.nic.account cimport note_time, since_mark
from cdna.nic.loop cimport SleepingLoop, driver_in_loop_t
from cdna.nic.slow cimport SLOW_FOR
from cdna.nic.state cimport nic_t

from cdna.errors import ConfigError
from cdna.nic.tap import set_carrier


cdef void ready(driver_in_loop_t *self, uint32_t which) noexcept nogil:
    cdef pump_t *pump = <pump_t *>self
    if which < pump.ports:
        pump.port[which].readable = 1


cdef void rescan(driver_in_loop_t *self) noexcept nogil:
    cdef pump_t *pump = <pump_t *>self
    cdef uint32_t i
    for i in range(pump.ports):
        pump.port[i].readable = 1


cdef int to_nic(driver_in_loop_t *self) noexcept nogil:
    cdef pump_t *pump = <pump_t *>self
    cdef nic_t *nic = pump.nic
    cdef port_t *port
    cdef uint32_t i
    cdef int n = 0
    nic.mark = cycles()                 # what was before was a sleep, or nobody's
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.readable and port.driver != NULL:
            n += from_tap(port)
            note_time(nic, &nic.context[port.driver.context].time.tx)
    return n


cdef inline int write_out(pump_t *pump, port_t *port) noexcept nogil:
    """Writes what a port has received, and looks what that cost. Returns how many frames.

    Nothing is left but of a port that is slow: the receive ring would run out of buffers.
    """
    cdef nic_t *nic = pump.nic
    cdef uint32_t writes
    cdef uint64_t spent
    cdef int n = 0
    nic.other_cycles += since_mark(nic)
    while not port.slow and n < BUDGET and rx_ready(port.driver):
        writes = port.writes
        n += to_tap(port, nic.mark, pump.slow_write, pump.allowed)
        writes = port.writes - writes
        spent = note_time(nic, &nic.context[port.driver.context].time.rx)
        judge(port, nic.mark, spent, pump.slow_write * (writes if writes else 1), pump.allowed, pump.served)
    return n


cdef int let_write(pump_t *pump, port_t *port) noexcept nogil:
    """Hands over what a slow port has received, and takes back what was written. Returns how many frames."""
    cdef nic_t *nic = pump.nic
    cdef int n
    nic.other_cycles += since_mark(nic)
    n = take_back(port)
    if turned_fast(port, nic.mark):
        return n + write_out(pump, port)
    if hand_over(port, nic.mark):
        n += 1
        add_u32(&pump.handed, 1)
        if swap_u32(&pump.asleep, 0):
            futex_wake(&pump.handed)
    note_time(nic, &nic.context[port.driver.context].time.rx)
    return n


cdef int from_nic(driver_in_loop_t *self) noexcept nogil:
    cdef pump_t *pump = <pump_t *>self
    cdef port_t *port
    cdef uint32_t i
    cdef int n = 0
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.driver == NULL:
            continue
        if unlikely(port.slow):
            n += let_write(pump, port)
        elif rx_ready(port.driver):
            n += write_out(pump, port)
    return n


cdef int drives(const driver_in_loop_t *self) noexcept nogil:
    cdef const pump_t *pump = <const pump_t *>self
    cdef const port_t *port
    cdef uint32_t i
    cdef int n = 0
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.driver == NULL or load_u32(&port.driver.page.state) != CONTEXT_RUNNING:
            continue
        # Its ring is full, and its tap's event is past; or buffers come back, of which no descriptor tells.
        if port.readable or handed_over(port):
            return -1
        n += 1
    return n


# --- the second thread ------------------------------------------------------------------------------------

cdef port_t *least_served(pump_t *pump) noexcept nogil:
    """The slow port with frames that the thread has had the least time for; NULL: there is none."""
    cdef port_t *port
    cdef port_t *least = NULL
    cdef uint32_t i
    for i in range(load_u32(&pump.ports)):
        port = &pump.port[i]
        if has_frame(port) and (least == NULL or port.served < least.served):
            least = port
    return least


cdef void write_one(pump_t *pump, port_t *port) noexcept nogil:
    """Writes a slow port's next frame, and notes what that cost. The port may be removed meanwhile."""
    cdef uint64_t begun, spent
    cdef uint32_t upto
    swap_u32(&pump.at, <uint32_t>(port - pump.port) + 1)
    if load_u32(&port.slow):            # else it was removed, before `at` could tell
        pump.served = port.served
        begun = thread_ns()
        upto = write_next(port)
        spent = thread_ns() - begun
        port.served += spent
        if spent > SLOW_WRITE_NS:
            store_u64(&port.slow_until, cycles() + SLOW_FOR * <uint64_t>(spent * pump.nic.cycles_per_ns))
        store_u32(&port.handed_consumer, upto)
    swap_u32(&pump.at, 0)
    if load_u32(&pump.waiting):
        futex_wake(&pump.at)


cdef void write_slow_ports(pump_t *pump) noexcept nogil:
    """The second thread, until `pump.stop`."""
    cdef uint32_t handed
    cdef port_t *port
    while True:
        handed = load_u32(&pump.handed)
        if load_u32(&pump.stop):
            return
        port = least_served(pump)
        if port != NULL:
            write_one(pump, port)
            continue
        swap_u32(&pump.asleep, 1)
        futex_wait(&pump.handed, handed)
        store_u32(&pump.asleep, 0)


# --- control ----------------------------------------------------------------------------------------------

cdef class Pump:
    """Moves the frames of namespace guests in a NIC's loop, from the first port on."""

    cdef pump_t c
    cdef SleepingLoop loop
    cdef dict drivers           # by port: kept alive while the loop uses them
    cdef object _writer         # the second thread, or None before the first port

    def __init__(self, SleepingLoop loop):
        self.loop = loop
        self.drivers = {}
        self.c.driver.to_nic = to_nic
        self.c.driver.from_nic = from_nic
        self.c.driver.ready = ready
        self.c.driver.rescan = rescan
        self.c.driver.drives = drives
        self.c.nic = loop.nic.c
        self.c.slow_write = <uint64_t>(SLOW_WRITE_NS * self.c.nic.cycles_per_ns)
        self.c.allowed = <uint64_t>(ALLOWED_NS * self.c.nic.cycles_per_ns)
        self.c.port = <port_t *>PyMem_Calloc(self.c.nic.contexts, sizeof(port_t))
        if self.c.port == NULL:
            raise MemoryError

    cdef _share(self):
        """Has the loop call the pump while it has ports."""
        if self.drivers:
            self.loop.share(&self.c.driver, self)
        else:
            self.loop.share(NULL, None)

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
        cdef nic_t *nic = self.c.nic
        if driver.c.context >= nic.contexts or nic.context[driver.c.context].page != driver.c.page:
            raise ConfigError("the driver of a tap: give one of this process, on a context of the loop's NIC")
        cdef uint32_t number = 0
        cdef port_t *port
        self._start_writer()
        with self.loop.nic.quiesced():
            number = self._free_port()
            port = &self.c.port[number]
            self._make_ring(port, driver.c.rx.size)
            self.loop.add_watch(tap_fd, number, EPOLLIN | EPOLLET)
            port.fd = tap_fd
            port.link = 1
            port.joins = 1
            port.readable = 1
            port.received = driver.c.memory + driver.c.rx_pool
            port.buffer_size = driver.c.buffer_size
            port.used = 1
            port.driver = &driver.c
            self.drivers[number] = driver
            self._share()
        return number

    cdef uint32_t _free_port(self) except? 0xFFFFFFFF:
        cdef uint32_t number
        for number in range(self.c.ports):
            if not self.c.port[number].used:
                return number
        if self.c.ports == self.c.nic.contexts:
            raise ConfigError(f"{self.c.ports} ports: each context of the NIC has one")
        store_u32(&self.c.ports, self.c.ports + 1)
        return self.c.ports - 1

    cdef _make_ring(self, port_t *port, uint32_t size):
        """Begins a port anew, with room for so many buffers that are handed over."""
        cdef void *ring = PyMem_Realloc(port.handed, size * sizeof(handed_t))
        if ring == NULL:
            raise MemoryError
        memset(port, 0, sizeof(port_t))
        port.handed = <handed_t *>ring
        port.handed_mask = size - 1

    def _write(self):
        with nogil:
            write_slow_ports(&self.c)

    cdef _start_writer(self):
        if self._writer is None:
            store_u32(&self.c.stop, 0)
            self._writer = threading.Thread(target=self._write, name="cdna-taps", daemon=True)
            self._writer.start()

    def remove(self, uint32_t number):
        """Disconnects a port: before its context is revoked, and its tap closed.

        What a slow guest had not taken is lost, but one write may have to end; the engine goes on meanwhile.
        """
        cdef port_t *port = NULL
        with self.loop.nic.quiesced():
            port = self._port(number)
            self.loop.drop_watch(port.fd)
            swap_u32(&port.slow, 0)     # before the look at `at`; `write_one` writes that one first
            port.driver = NULL
            driver = self.drivers.pop(number)   # kept until the write has ended
            self._share()
        with nogil:
            add_u32(&self.c.waiting, 1)
            while load_u32(&self.c.at) == number + 1:
                futex_wait(&self.c.at, number + 1)
            add_u32(&self.c.waiting, 0xFFFFFFFF)
        port.used = 0
        del driver

    def close(self):
        """Disconnects all ports and ends the second thread. Closing twice is harmless."""
        for number in list(self.drivers):
            self.remove(number)
        if self._writer is not None:
            store_u32(&self.c.stop, 1)
            add_u32(&self.c.handed, 1)
            futex_wake(&self.c.handed)
            self._writer.join()
            self._writer = None

    cdef port_t *_port(self, uint32_t number) except NULL:
        if number not in self.drivers:
            raise ConfigError(f"port {number}: give one that `add` returned")
        return &self.c.port[number]

    def set_link(self, uint32_t number, bint up):
        """Plugs the guest's cable in or out: its device shows the carrier, and frames to it are lost."""
        set_carrier(self._port(number).fd, up)
        store_u32(&self._port(number).link, up)

    def set_gro(self, uint32_t number, bint on):
        """Joins UDP datagrams of one flow in front of the guest's device (udp_gro.pxd), or not."""
        store_u32(&self._port(number).gro, on)

    def stats(self, uint32_t number) -> dict:
        """Frames of a port: from_tap, to_tap, lost_from_tap, lost_to_tap, lost_to_link.

        slow: of to_tap, those that the second thread wrote.
        """
        cdef port_t *port = self._port(number)
        return {"from_tap": port.from_tap, "to_tap": port.to_tap, "lost_from_tap": port.lost_from_tap,
                "lost_to_tap": port.lost_to_tap, "lost_to_link": port.lost_to_link,
                "slow": port.slow_frames}

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.c.ports):
            PyMem_Free(self.c.port[i].handed)
        PyMem_Free(self.c.port)
