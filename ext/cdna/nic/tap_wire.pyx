"""The tap wire: the host's network stack on the other end.

One system call a frame: a tap has no other way, and it is the kernel's price for the bridges that it is
compared with, too. With the virtio-net header a frame may be a large TCP segment, and the price is that of
some forty frames.

A tap that is down takes no frames (EIO), one that is gone neither (EBADFD): both are a link that is down,
until the device is up again (`watched_wire.pxd`).
"""
# build: unfuzzed

from libc.errno cimport EAGAIN, EINTR, EIO, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport read, write

from cdna.abi cimport MAX_FRAME, MAX_TSO_FRAME, VNET_HEADER, vnet_header_t
from cdna.nic.frame cimport BURST, frame_t, piece_t
from cdna.nic.offload.flow_hash cimport flow_hash
from cdna.nic.offload.vnet cimport read_vnet, write_vnet
from cdna.nic.watched_wire cimport WatchedWire, device_lost, take_change, watched_t
from cdna.nic.wire cimport down_tx, is_down, lose_tx
from cdna.nic.wire_contract cimport wire_t
from cdna.uio cimport iovec, writev

import os
import select

from cdna.errors import CdnaError
from cdna.nic.device_drops import DeviceDrops
from cdna.nic.tap import (
    check_tap_name, device_exists, is_tap, limit_frames, mtu_of, open_tap, set_carrier, set_offloads,
)

cdef extern from "<errno.h>" nogil:
    int EBADFD

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int fd)

cdef enum:
    HEADROOM = 4                # bytes before the virtio-net header, so that frames are aligned to 16
    SLOT_STRIDE = 65600         # an odd number of cache lines: frames lie in different sets of the cache
    SLOT_BYTES = SLOT_STRIDE - HEADROOM
    LONGEST = 65472             # bytes of a frame that the host is asked to keep to

cdef struct tap_t:
    watched_t watched           # first: see watched_wire.pxd
    uint32_t queues
    uint32_t next               # queue that is read first
    uint32_t header             # bytes before each frame: VNET_HEADER or 0
    int32_t fd[256]             # by queue: MAX_TAP_QUEUES of cdna.nic.tap
    uint64_t rx_oversize        # frames that no NIC here carries
    uint64_t rx_bad_offload     # frames with work left to do that no NIC here does
    uint8_t *slot


# --- sending ----------------------------------------------------------------------------------------------

cdef inline ssize_t write_frame(const tap_t *tap, int fd, frame_t *frame) noexcept nogil:
    cdef vnet_header_t vnet
    cdef piece_t head
    cdef iovec piece[2]
    if tap.header == 0:
        return write(fd, frame.data, frame.len)
    if frame.has_offload:
        head.data = frame.data
        head.len = frame.len
        write_vnet(&vnet, &frame.offload, &head, 0)
    else:
        memset(&vnet, 0, sizeof(vnet))
    piece[0].iov_base = &vnet
    piece[0].iov_len = VNET_HEADER
    piece[1].iov_base = frame.data
    piece[1].iov_len = frame.len
    return writev(fd, piece, 2)


cdef int tap_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef tap_t *tap = <tap_t *>self.state
    cdef uint32_t queue = 0
    cdef int i
    for i in range(n):
        if is_down(self):
            return i + down_tx(self, frame, n - i)
        if tap.queues > 1:
            queue = <uint32_t>((<uint64_t>flow_hash(frame[i].data, frame[i].len) * tap.queues) >> 32)
        if write_frame(tap, tap.fd[queue], &frame[i]) >= 0:
            continue
        if errno in (EAGAIN, EINTR, ENOBUFS, ENOMEM):
            return i                        # offered again
        if errno in (EBADFD, EIO):
            device_lost(self, &tap.watched)
        lose_tx(self, 1)
    return n


# --- receiving --------------------------------------------------------------------------------------------

cdef inline bint take_frame(tap_t *tap, frame_t *frame, uint8_t *at, uint32_t length) noexcept nogil:
    """Makes a frame of what was read. False: it is none for this NIC, and counted."""
    cdef bint has_offload = False
    cdef uint32_t len = length - tap.header
    frame.data = at + tap.header
    frame.len = len
    frame.timestamp_ns = 0
    if length < tap.header:
        tap.rx_bad_offload += 1
        return False
    if tap.header and read_vnet(<vnet_header_t *>at, frame.data, len, len, &frame.offload, &has_offload):
        tap.rx_bad_offload += 1
        return False
    frame.has_offload = has_offload
    if len > <uint32_t>(MAX_TSO_FRAME if has_offload and frame.offload.mss else MAX_FRAME):
        tap.rx_oversize += 1                # and cut to SLOT_BYTES, perhaps
        return False
    return True


cdef int tap_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    """A burst is of one queue where that has as many frames; the next burst begins with the next queue."""
    cdef tap_t *tap = <tap_t *>self.state
    cdef uint8_t *at = tap.slot + HEADROOM
    cdef ssize_t length
    cdef uint32_t _looked, queue = tap.next
    cdef int i = 0
    take_change(&tap.watched)
    if is_down(self):
        return 0
    if n > BURST:
        n = BURST
    for _looked in range(tap.queues):
        while i < n:
            length = read(tap.fd[queue], at, SLOT_BYTES)
            if length < 0:
                if errno == EBADFD:
                    device_lost(self, &tap.watched)
                    return i
                break
            if take_frame(tap, &frame[i], at, <uint32_t>length):
                at += SLOT_STRIDE
                i += 1
        queue = queue + 1 if queue + 1 < tap.queues else 0
        if i == n:
            break
    tap.next = queue
    return i


# --- control ----------------------------------------------------------------------------------------------

cdef class TapWire(WatchedWire):
    """A wire to the tap device `name`, made if there is none, and brought up.

    queues: descriptors of the tap, each of which the kernel fills by flow; what is sent of one flow keeps to
    one of them. vnet_header: large frames and missing checksums pass as they are, both ways.

    Needs CAP_NET_ADMIN or a persistent tap of the user's own; otherwise ResourceError says so. When the
    device goes away or down, the link is down until it is back; another one of the same name will do.
    """

    cdef tap_t *tap
    cdef list _queues           # here as well: the shared memory may be gone before this object
    cdef readonly bint vnet_header
    cdef object _drops

    def __cinit__(self, *args, **kwargs):
        self._queues = []
        self.tap = <tap_t *>self.share(sizeof(tap_t))
        self.watched = &self.tap.watched

    def __init__(self, name, *, queues=1, vnet_header=True):
        self.tap.slot = <uint8_t *>self.share(BURST * SLOT_STRIDE)
        check_tap_name(name)
        existed = device_exists(name)
        self.vnet_header = vnet_header
        self._queues = open_tap(name, queues=queues, vnet_header=vnet_header)
        if not existed and vnet_header:
            limit_frames(name, LONGEST)
        self.name = name
        self._drops = DeviceDrops(name)
        self.tap.queues = len(self._queues)
        self.tap.header = VNET_HEADER if vnet_header else 0
        for i, fd in enumerate(self._queues):
            self.tap.fd[i] = fd
        self.c.state = self.tap
        self.c.tx = tap_tx
        self.c.rx = tap_rx
        self.c.offloads = set_offloads(self._queues[0], vnet_header)
        self.begin_watch()

    def fileno(self):
        """The first queue's descriptor, readable when the host has sent something; -1 after close."""
        return self._queues[0] if self._queues else -1

    def stats(self):
        """Wire.stats, and

        rx_drop_device: frames of the host's for which the tap's queue had no room;
        rx_oversize, rx_bad_offload: frames that are too long or ask for too much.
        """
        return {
            **super().stats(),
            "rx_drop_device": self._drops.count(),
            "rx_oversize": self.tap.rx_oversize,
            "rx_bad_offload": self.tap.rx_bad_offload,
        }

    @property
    def mtu(self):
        """The device's, as it is now; None where it is gone."""
        return mtu_of(self.name)

    def _device_fds(self):
        return self._queues

    def _find_trouble(self):
        state = tap_state(self._queues[0])
        if state & select.POLLERR:
            if not is_tap(self.name):                   # which open_tap would make
                return "the device is gone"
            try:
                self._attach_again()
            except CdnaError as error:
                return f"the device is gone, and there is another, but {error}"
            state = tap_state(self._queues[0])
        return None if state & select.POLLOUT else "the device is down"

    def _attach_again(self):
        """Puts the new device behind the old descriptors."""
        fresh = open_tap(self.name, queues=len(self._queues), vnet_header=self.vnet_header, up=False)
        self._wait_for_device(False)
        for old, new in zip(self._queues, fresh):
            os.dup2(new, old, inheritable=False)
            os.close(new)
        self._drops.follow(self.name)

    def _show_device(self, plugged):
        set_carrier(self._queues[0], plugged)

    def close(self):
        """Takes the wire down and gives the tap back; unless it is persistent, it is gone."""
        super().close()
        if self._drops is not None:
            self._drops.close()
        fds, self._queues = self._queues, []
        for fd in fds:
            os.close(fd)

    def __dealloc__(self):
        if self._queues is not None:
            for fd in self._queues:
                close_descriptor(fd)


def tap_state(int fd):
    """Events of a tap's descriptor: POLLERR, there is no device; POLLOUT, it is up."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return dict(poll.poll(0)).get(fd, 0)
