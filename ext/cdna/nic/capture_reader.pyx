"""The reader of a capture's ring, in any process: frames from there to pcapng blocks, without an object each.

The file's other side is trusted to be an engine that may be broken: lengths are read once and checked against
what the ring holds, so a damaged ring ends in an error and never in somebody else's memory.
"""

import fcntl
import os
from typing import NamedTuple

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from cdna.abi cimport MAX_TSO_FRAME
from cdna.cpu cimport load_u64, store_u64
from cdna.nic.capture_ring cimport (
    CAPTURE_CONTEXTS, CAPTURE_HEAD, CAPTURE_HEADER, CAPTURE_IN, CAPTURE_INTERFACE, CAPTURE_NOT_DROPPED,
    CAPTURE_OUT, CAPTURE_PAD, CAPTURE_RX_DROP_LINK, CAPTURE_RX_DROP_MTU, CAPTURE_RX_DROP_NO_BUFFER,
    CAPTURE_RX_DROP_NO_DRIVER, CAPTURE_RX_DROP_STOPPED, CAPTURE_TX_DROP_FILTER, CAPTURE_TX_DROP_LINK,
    CAPTURE_TX_DROP_MTU, CAPTURE_TX_DROP_SPOOF, CAPTURE_TX_DROP_STORM, CAPTURE_TX_DROP_VLAN, capture_page_t,
    interface_t, record_t,
)
from cdna.nic.pcapng cimport EPB_INBOUND, EPB_OUTBOUND, PcapngWriter, put_packet

from cdna.errors import ConfigError, ResourceError
from cdna.nic.pcapng import packet_options

cdef enum _Look:                # what comes next in the ring
    EMPTY = 0
    FRAME = 1
    INTERFACE = 2               # a context gets a name
    UNNAMED = 3                 # a frame of a context that has none
    FULL = 4                    # a frame for which the writer has no room
    DAMAGED = 5

cdef enum:
    REASONS = 13                # the last one stands for those that this reader does not know

_DROPPED = {
    CAPTURE_TX_DROP_SPOOF: "tx_drop_spoof (source address not the context's own)",
    CAPTURE_TX_DROP_VLAN: "tx_drop_vlan (a VLAN tag that the context may not send)",
    CAPTURE_TX_DROP_LINK: "tx_drop_link (the wire was down)",
    CAPTURE_TX_DROP_FILTER: "tx_drop_filter (nobody to deliver to, and not for the wire)",
    CAPTURE_TX_DROP_MTU: "tx_drop_mtu (longer than the context's MTU)",
    CAPTURE_TX_DROP_STORM: "tx_drop_storm (a broadcast or multicast beyond the context's storm limit)",
    CAPTURE_RX_DROP_MTU: "rx_drop_mtu (longer than the context's MTU)",
    CAPTURE_RX_DROP_LINK: "rx_drop_link (the guest's cable is out)",
    CAPTURE_RX_DROP_NO_DRIVER: "rx_drop_no_driver (no frontend, or no driver yet)",
    CAPTURE_RX_DROP_NO_BUFFER: "rx_drop_no_buffer (no receive buffer for it)",
    CAPTURE_RX_DROP_STOPPED: "rx_drop_stopped (the context was stopped by a fault)",
}

cdef uint8_t _options[2][REASONS][128]      # of a packet, by direction and reason
cdef uint32_t _options_len[2][REASONS]


def _comment(direction, reason):
    if reason == CAPTURE_NOT_DROPPED:
        return "sent" if direction == CAPTURE_OUT else "received"
    return f"dropped: {_DROPPED.get(reason, 'for a reason that this program does not know')}"


cdef _make_options():
    cdef uint32_t direction, reason
    cdef bytes options
    for direction in (CAPTURE_OUT, CAPTURE_IN):
        for reason in range(REASONS):
            options = packet_options(flags=EPB_OUTBOUND if direction == CAPTURE_OUT else EPB_INBOUND,
                                     comment=_comment(direction, reason))
            assert len(options) <= 128
            memcpy(_options[direction][reason], PyBytes_AS_STRING(options), PyBytes_GET_SIZE(options))
            _options_len[direction][reason] = <uint32_t>PyBytes_GET_SIZE(options)


_make_options()


class CaptureRecord(NamedTuple):
    """One frame of a capture under way. `comment` says what became of it, as in the file."""

    interface: str
    context: int
    direction: int          # CaptureDirection
    reason: int             # CaptureReason
    comment: str
    timestamp_ns: int       # since 1970
    length: int             # bytes on the wire; of which `data` has those that were kept
    data: bytes


class InterfaceCount(NamedTuple):
    """What was written of an interface, and what the ring had no room for: frames."""

    interface: int
    written: int
    lost: int


def _bad_file():
    return ConfigError("this file is no capture buffer: give the descriptor of a CaptureRing")


@cython.no_gc_clear     # __dealloc__ unmaps
cdef class CaptureReader:
    """Reads the ring in the memory file `fd`, which it maps and does not keep. A ring has one reader.

    snaplen: what the file says of it, 0: whole frames. Errors: ConfigError for a file that is no such ring,
    later ResourceError for a ring that is damaged.
    """
    cdef capture_page_t *_page
    cdef uint8_t *_records
    cdef uint64_t _size                             # bytes of records
    cdef uint64_t _consumer
    cdef int32_t _interface[CAPTURE_CONTEXTS]       # number in the file, by context; -1: none yet
    cdef uint64_t _written[CAPTURE_CONTEXTS]        # frames, by context
    cdef uint64_t _lost_before[CAPTURE_CONTEXTS]    # of page.lost_of: before this interface
    cdef list _names                                # of interfaces, by context, for `read`
    cdef list _past                                 # InterfaceCount, where the context has another name now
    cdef uint32_t _snaplen
    cdef readonly uint64_t frames                   # that were read

    def __init__(self, int fd, *, uint32_t snaplen=0):
        if self._page != NULL:
            raise TypeError("a CaptureReader is made once")
        memset(self._interface, 0xFF, sizeof(self._interface))
        self._names = [None] * CAPTURE_CONTEXTS
        self._past = []
        self._snaplen = snaplen
        try:
            seals, size = fcntl.fcntl(fd, fcntl.F_GET_SEALS), os.fstat(fd).st_size - CAPTURE_HEAD
        except OSError:
            raise _bad_file() from None
        if not seals & fcntl.F_SEAL_SHRINK or size < 65536 or size & (size - 1):
            raise _bad_file()
        cdef void *base = mmap(NULL, CAPTURE_HEAD + <size_t>size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise ResourceError(f"cannot map a capture buffer of {size >> 20} MiB: give a smaller one")
        self._page = <capture_page_t *>base
        self._records = <uint8_t *>base + CAPTURE_HEAD
        self._size = size
        self._consumer = load_u64(&self._page.consumer)

    def __dealloc__(self):
        if self._page != NULL:
            munmap(self._page, CAPTURE_HEAD + self._size)

    @property
    def lost(self):
        """Frames that found no room in the ring."""
        return self._page.lost

    @property
    def ended(self):
        """Whether nothing is added to the ring any more."""
        return load_u64(&self._page.ended) != 0

    @property
    def produced(self):
        """How far the ring is filled: bytes since the beginning."""
        return load_u64(&self._page.producer)

    @property
    def consumed(self):
        """How far it is read."""
        return self._consumer

    def counts(self):
        """An `InterfaceCount` for each interface that a `PcapngWriter` was given, in their order."""
        cdef uint32_t context
        now = [self._count(context) for context in range(CAPTURE_CONTEXTS) if self._interface[context] >= 0]
        return sorted(self._past + now)

    cdef _count(self, uint32_t context):
        lost = load_u64(&self._page.lost_of[context]) - self._lost_before[context]
        return InterfaceCount(self._interface[context], self._written[context], lost)

    # --- records ------------------------------------------------------------------------------------------

    cdef int _look(self, uint64_t producer, record_t *record) noexcept nogil:
        """Copies the head of the next record; passes over the filler at the ring's end."""
        cdef uint64_t at, end, left
        while True:
            left = producer - self._consumer
            if left == 0:
                return EMPTY
            at = self._consumer & (self._size - 1)
            end = self._size - at
            if left < 8 or at & 7:
                return DAMAGED
            memcpy(record, self._records + at, 8)
            if record.size < 8 or record.size & 7 or record.size > left or record.size > end:
                return DAMAGED
            if record.direction == CAPTURE_PAD:
                self._consumer += record.size
                continue
            if record.size < CAPTURE_HEADER or record.context >= CAPTURE_CONTEXTS:
                return DAMAGED
            memcpy(<uint8_t *>record + 8, self._records + at + 8, CAPTURE_HEADER - 8)
            if record.caplen > record.size - CAPTURE_HEADER or record.caplen > MAX_TSO_FRAME:
                return DAMAGED
            if record.direction == CAPTURE_INTERFACE:
                return INTERFACE if record.caplen >= sizeof(interface_t) else DAMAGED
            return FRAME if record.direction <= CAPTURE_IN else DAMAGED

    cdef const uint8_t *_data(self) noexcept nogil:
        """The bytes behind the head of the next record."""
        return self._records + (self._consumer & (self._size - 1)) + CAPTURE_HEADER

    cdef uint64_t _produced(self) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint64_t producer = load_u64(&self._page.producer)
        if producer - self._consumer > self._size:
            self._damaged()
        return producer

    cdef _damaged(self):
        raise ResourceError(f"the capture buffer is damaged at byte {self._consumer}: start another capture")

    cdef void _consume(self, uint32_t size) noexcept nogil:
        self._consumer += size

    cdef void _release(self) noexcept nogil:
        """Gives the engine the room of what was read."""
        store_u64(&self._page.consumer, self._consumer)

    # --- to pcapng ----------------------------------------------------------------------------------------

    def transfer(self, PcapngWriter writer, uint64_t limit=0):
        """Moves frames into the writer's buffer until the ring is empty, the buffer full or `limit` reached.

        limit: frames, 0: no limit. Interfaces are described as they appear. Returns frames moved.
        """
        cdef uint64_t producer = self._produced(), moved = 0, most = limit or <uint64_t>-1
        cdef record_t record
        cdef int kind = FRAME
        if writer._exports:
            raise BufferError("the writer's buffer is being written to a file: release its view first")
        while moved < most:
            with nogil:
                kind = self._move_frames(writer, producer, most, &moved, &record)
            if kind == INTERFACE:
                if not self._new_interface(writer, &record):
                    break
                self._consume(record.size)
            elif kind == UNNAMED:
                if not self._describe(writer, record.context, f"context {record.context}", b""):
                    break
            else:
                break
        self._release()
        self.frames += moved
        if kind == DAMAGED:
            self._damaged()
        return moved

    cdef int _move_frames(self, PcapngWriter writer, uint64_t producer, uint64_t most, uint64_t *moved,
                          record_t *record) noexcept nogil:
        cdef int kind = FRAME
        cdef uint32_t way, reason
        while moved[0] < most:
            kind = self._look(producer, record)
            if kind != FRAME:
                return kind
            if self._interface[record.context] < 0:
                return UNNAMED
            way = record.direction
            reason = record.reason if record.reason < REASONS else REASONS - 1
            if not put_packet(&writer.c, self._interface[record.context], record.timestamp_ns, self._data(),
                              record.caplen, record.len, _options[way][reason], _options_len[way][reason]):
                return FULL
            self._written[record.context] += 1
            moved[0] += 1
            self._consume(record.size)
        return FRAME

    cdef bint _new_interface(self, PcapngWriter writer, const record_t *record) except -1:
        cdef interface_t interface
        memcpy(&interface, self._data(), sizeof(interface))
        mac = int(interface.mac & 0xFFFFFFFFFFFF).to_bytes(6, "little")
        past = None
        if self._interface[record.context] >= 0:
            past = InterfaceCount(self._interface[record.context], self._written[record.context],
                                  interface.lost_of - self._lost_before[record.context])
        if not self._describe(writer, record.context, self._name(record), mac):
            return False
        if past is not None:
            self._past.append(past)
        self._lost_before[record.context] = interface.lost_of
        return True

    cdef bint _describe(self, PcapngWriter writer, uint32_t context, name, mac) except -1:
        number = writer.add_interface(name, description=f"context {context} of a CDNA NIC", mac=mac,
                                      snaplen=self._snaplen)
        if number < 0:
            return False
        self._interface[context] = number
        self._written[context] = 0
        self._lost_before[context] = 0
        return True

    cdef _name(self, const record_t *record):
        cdef const char *name = <const char *>self._data() + sizeof(interface_t)
        return PyBytes_FromStringAndSize(name, record.caplen - sizeof(interface_t)).decode("utf-8", "replace")

    # --- to Python ----------------------------------------------------------------------------------------

    def read(self, uint32_t limit=1024):
        """At most `limit` frames as `CaptureRecord`, for programs that look at them one by one."""
        cdef uint64_t producer = self._produced()
        cdef record_t record
        cdef list records = []
        cdef int kind = FRAME
        while len(records) < limit:
            kind = self._look(producer, &record)
            if kind == INTERFACE:
                self._names[record.context] = self._name(&record)
            elif kind == FRAME:
                records.append(CaptureRecord(
                    self._names[record.context] or f"context {record.context}", record.context,
                    record.direction, record.reason, _comment(record.direction, record.reason),
                    record.timestamp_ns, record.len,
                    PyBytes_FromStringAndSize(<const char *>self._data(), record.caplen)))
            else:
                break
            self._consume(record.size)
        self._release()
        self.frames += <uint64_t>len(records)
        if kind == DAMAGED and not records:
            self._damaged()
        return records
