"""One port of the pump: a guest's tap on one side, its context on the other.

    guest's stack -> tap -> transmit buffer -> NIC          NIC -> receive buffer -> tap -> guest's stack

The virtio-net header stays in front of the frame all the way. The kernel runs the receiving stack, packet
sockets and their filters included, inside the write to the tap. A port whose writes take long is `slow`, and
another thread writes for it (slow_tap.pxd).
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from posix.unistd cimport read

from cdna.abi cimport (
    COMPLETION_F_EOP, CONTEXT_RUNNING, DESC_F_EOP, RING_TX, completion_t,
)
from cdna.cpu cimport cycles, load_u32
from cdna.guest_driver.queues cimport (
    announce, buffer_at, buffer_maddr, driver_t, give_free, post, room, rx_ready, rx_refill, rx_take,
    take_free, tx_reclaim,
)
from cdna.guests.udp_gro cimport gro_join, gro_t, gro_write
from cdna.nic.offload.vnet cimport carried
from cdna.uio cimport iovec, writev

cdef enum:
    BUDGET = 32                 # frames of a port in one round, each way
    FRAGMENTS = 8               # buffers of one frame, at most
    MIN_BUFFER = 16384          # bytes: so the longest frame has no more fragments

cdef struct handed_t:           # a receive buffer that the second thread is to write
    uint32_t buffer
    uint16_t len
    uint16_t last               # 1: the frame ends here

cdef struct port_t:             # a guest: its tap and its context
    uint32_t used               # 1: the port is not free
    driver_t *driver            # for the loop's thread; NULL: there is nothing to do
    int fd                      # of the tap
    uint32_t readable           # 1: the tap may have frames
    uint32_t link               # 1: up
    uint32_t gro                # 1: datagrams are joined, as the guest's device says
    bint joins                  # the tap takes joined datagrams
    uint64_t from_tap           # frames
    uint64_t to_tap
    uint64_t lost_to_tap        # frames that the tap did not take
    uint64_t lost_to_link       # frames that came while the link was down
    uint64_t lost_from_tap      # frames that no NIC here carries, or that the VMM refused
    uint32_t writes             # to the tap, by the loop's thread
    uint64_t excess             # cycles that they took beyond what they may
    uint32_t slow               # 1: the second thread writes to the tap
    uint64_t slow_frames        # of to_tap, those that it wrote
    # Of a slow port: see slow_tap.pxd.
    uint8_t *received           # its receive buffers, and their size
    uint32_t buffer_size
    uint64_t slow_until         # cycle count
    uint64_t served             # ns of the second thread, for the order of its ports
    handed_t *handed            # a ring as long as the receive ring: it is never full
    uint32_t handed_mask
    uint32_t handed_producer    # free-running; written by the loop's thread
    uint32_t handed_back        # free-running; the buffers before it are the driver's again
    uint32_t handed_consumer    # free-running; written by the second thread


cdef inline int from_tap(port_t *port) noexcept nogil:
    """Frames that the guest's stack has sent, into its context. Returns how many.

    The MTU of the device may have been set to anything, and a raw socket sends headers of its own. What would
    fault the context is lost instead: no program costs the others inside the guest their device.
    """
    cdef driver_t *d = port.driver
    cdef uint32_t before = d.tx.producer, buffer, taken
    cdef uint8_t *data
    cdef ssize_t length
    cdef int n = 0, bad = 0
    if load_u32(&d.page.state) != CONTEXT_RUNNING:
        return 0
    tx_reclaim(d)
    while n + bad < BUDGET and room(&d.tx) and d.tx.n_free:
        buffer = take_free(&d.tx)
        data = buffer_at(d, d.tx_pool, buffer)
        length = read(port.fd, data, d.buffer_size)
        if length < 0:
            port.readable = errno == EINTR
            give_free(&d.tx, buffer)
            break
        # One that fills the buffer was cut to it, perhaps.
        if length == d.buffer_size or not carried(data, <uint32_t>length):
            give_free(&d.tx, buffer)
            bad += 1
            continue
        post(d, &d.tx, RING_TX, buffer_maddr(d, d.tx_pool, buffer), <uint16_t>length, DESC_F_EOP, buffer)
        n += 1
    port.lost_from_tap += bad
    if n:
        announce(d, &d.tx, RING_TX)
        d.refusal = 0
        taken = d.tx.producer - before
        port.from_tap += taken
        port.lost_from_tap += n - taken
    return n + bad


cdef inline void write_to_tap(port_t *port, const iovec *part, int parts) noexcept nogil:
    port.writes += 1
    if load_u32(&port.link):
        port.lost_to_tap += writev(port.fd, part, parts) < 0
    else:
        port.lost_to_link += 1


cdef inline void write_joined(port_t *port, gro_t *gro) noexcept nogil:
    """Writes the datagrams that were joined, and gives their buffers back."""
    cdef uint32_t n = gro.n, i
    port.writes += 1
    if load_u32(&port.link):
        port.lost_to_tap += gro_write(gro, port.fd, &port.joins)
    else:
        port.lost_to_link += n
    for i in range(n):
        give_free(&port.driver.rx, gro.buffer[i])
    gro.n = 0


cdef inline bint joined(port_t *port, gro_t *gro, uint8_t *data, uint32_t len,
                        uint32_t buffer) noexcept nogil:
    """Joins a frame to those before it. False: it can't be; it is to be written next, those before it are."""
    if gro_join(gro, data, len, buffer):
        return True
    if gro.n == 0:
        return False
    write_joined(port, gro)
    return gro_join(gro, data, len, buffer)


cdef inline int to_tap(port_t *port, uint64_t begun, uint64_t a_write, uint64_t allowed) noexcept nogil:
    """Frames that the NIC has delivered, to the guest's stack. Returns how many.

    Stops after the write that is `allowed` cycles late, where each may take `a_write` from `begun` on.
    """
    cdef driver_t *d = port.driver
    cdef gro_t gro
    cdef iovec part[FRAGMENTS]
    cdef uint32_t buffer[FRAGMENTS]
    cdef uint32_t ready = rx_ready(d), parts = 0, before = port.writes, written = before, i
    cdef bint joins = port.joins and load_u32(&port.gro)
    cdef completion_t completion
    cdef uint8_t *data
    cdef int n = 0
    gro.n = 0
    while ready and n < BUDGET:
        if port.writes != written and parts == 0:
            written = port.writes
            if cycles() - begun >= allowed + a_write * (written - before):
                break
        ready -= 1
        buffer[parts] = rx_take(d, &completion)
        data = buffer_at(d, d.rx_pool, buffer[parts])
        if parts == 0 and joins and joined(port, &gro, data, completion.len, buffer[0]):
            n += 1
            continue
        part[parts].iov_base = data
        part[parts].iov_len = completion.len
        parts += 1
        if not completion.flags & COMPLETION_F_EOP and parts < FRAGMENTS:
            continue
        n += 1
        write_to_tap(port, part, parts)
        for i in range(parts):
            give_free(&d.rx, buffer[i])
        parts = 0
    if gro.n:
        write_joined(port, &gro)
    if n:
        port.to_tap += n
        rx_refill(d)
    return n
