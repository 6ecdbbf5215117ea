"""The pump: the driver of every namespace guest, in the thread of the NIC's loop.

A namespace guest is a Linux network stack behind a tap. Its driver reads frames from the tap straight into
transmit buffers of the guest's memory and posts them as any driver does, validated by the VMM; what the NIC
puts into its receive buffers it writes to the tap. Both carry the virtio-net header, so checksums are never
computed and large segments never cut between guests that share a NIC. A round is

    taps that have frames -> contexts -> rounds of the engine -> contexts -> taps
"""
# build: unfuzzed

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint32_t
from libc.string cimport memset

from cdna.abi cimport CONTEXT_RUNNING
from cdna.cpu cimport load_u32, store_u32
from cdna.epoll cimport EPOLLET, EPOLLIN
from cdna.guest_driver.queues cimport Queues
from cdna.guests.tap_port cimport MIN_BUFFER, from_tap, port_t, to_tap
from cdna.nic.loop cimport SleepingLoop, driver_in_loop_t

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
    cdef port_t *port
    cdef uint32_t i
    cdef int n = 0
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.readable and port.driver != NULL:
            n += from_tap(port)
    return n


cdef int from_nic(driver_in_loop_t *self) noexcept nogil:
    cdef pump_t *pump = <pump_t *>self
    cdef port_t *port
    cdef uint32_t i
    cdef int n = 0
    for i in range(pump.ports):
        port = &pump.port[i]
        if port.driver != NULL:
            n += to_tap(port)
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
        if port.readable:               # its ring is full, and its tap's event is past
            return -1
        n += 1
    return n


# --- control ----------------------------------------------------------------------------------------------

cdef class Pump:
    """Moves the frames of namespace guests in a NIC's loop, from the first port on."""

    cdef pump_t c
    cdef SleepingLoop loop
    cdef dict drivers           # by port: kept alive while the loop uses them

    def __init__(self, SleepingLoop loop):
        self.loop = loop
        self.drivers = {}
        self.c.driver.to_nic = to_nic
        self.c.driver.from_nic = from_nic
        self.c.driver.ready = ready
        self.c.driver.rescan = rescan
        self.c.driver.drives = drives

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
        cdef uint32_t number
        with self.loop.nic.quiesced():
            number = self._free_port()
            memset(&self.c.port[number], 0, sizeof(port_t))
            self.loop.add_watch(tap_fd, number, EPOLLIN | EPOLLET)
            self.c.port[number].fd = tap_fd
            self.c.port[number].link = 1
            self.c.port[number].joins = 1
            self.c.port[number].readable = 1
            self.c.port[number].driver = &driver.c
            self.drivers[number] = driver
            self._share()
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
        with self.loop.nic.quiesced():
            port = self._port(number)       # which `add` may move
            self.loop.drop_watch(port.fd)
            port.driver = NULL
            del self.drivers[number]
            self._share()

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
        """Frames of a port: from_tap, to_tap, lost_from_tap, lost_to_tap, lost_to_link."""
        cdef port_t *port = self._port(number)
        return {"from_tap": port.from_tap, "to_tap": port.to_tap, "lost_from_tap": port.lost_from_tap,
                "lost_to_tap": port.lost_to_tap, "lost_to_link": port.lost_to_link}

    def __dealloc__(self):
        PyMem_Free(self.c.port)
