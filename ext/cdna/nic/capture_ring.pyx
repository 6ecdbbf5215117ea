"""The engine's side of a capture: its memory file, which contexts are in it, and what they are called."""

import errno
import fcntl
import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from cdna.abi cimport MAX_CONTEXTS, MAX_TSO_FRAME
from cdna.cpu cimport load_u64, store_u64
from cdna.nic.device cimport Nic
from cdna.nic.wire cimport cycles_per_second

from cdna.errors import ConfigError, ResourceError, whole

cdef extern from "<sys/mman.h>" nogil:
    int MAP_POPULATE

assert sizeof(capture_page_t) <= CAPTURE_HEAD and sizeof(record_t) == CAPTURE_HEADER
assert CAPTURE_CONTEXTS == MAX_CONTEXTS

DEFAULT_SIZE = 64 << 20         # bytes: 40 ms of full frames at a million a second
MAX_SIZE = 1 << 32
MAX_SNAPLEN = MAX_TSO_FRAME
cdef enum:
    MIN_SIZE = 262144           # holds two of the longest records, so that one always fits an empty ring
    ANNOUNCEMENT = 512          # bytes; the longest record of an interface
    CLOCK_EVERY_NS = 100000     # the cycle counter's rate is known to 0.01 %: 10 ns until the next look

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@cython.no_gc_clear     # __dealloc__ unmaps
cdef class CaptureRing:
    """A capture of `nic` with room for `size` bytes of records (rounded up to a power of two).

    Of each frame `snaplen` bytes are kept, 0: all. It starts with no context; `add` them. The memory file
    `fd`, which can neither shrink nor grow, is for a `CaptureReader` here or in another process. The engine
    has to run in this process. Errors: ConfigError, ResourceError where there is no memory.
    """
    cdef capture_ring_t c
    cdef readonly Nic nic
    cdef readonly int fd
    cdef dict _unannounced      # index: (name, MAC), where the ring had no room for it
    cdef bint _linked

    def __cinit__(self):
        self.fd = -1

    def __init__(self, Nic nic, *, size=DEFAULT_SIZE, snaplen=0):
        self.c.snaplen = whole("snaplen", snaplen, 0, 1 << 31) or MAX_SNAPLEN
        self.c.snaplen = min(self.c.snaplen, <uint32_t>MAX_SNAPLEN)
        size = whole("capture buffer", size, 1, MAX_SIZE)
        size = max(size, <int>MIN_SIZE, nic.contexts * <int>ANNOUNCEMENT)
        self.c.size = 1 << (size - 1).bit_length()
        self.c.ns_per_cycle = 1e9 / cycles_per_second()
        self.c.clock_cycles = <uint64_t>(CLOCK_EVERY_NS / self.c.ns_per_cycle)
        self.nic = nic
        self._unannounced = {}
        self._map(os.memfd_create("cdna-capture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        self._link()

    def _map(self, fd):
        """Makes the whole file at once: the engine meets no page fault, and no machine without memory."""
        cdef void *base
        self.fd = fd
        try:
            os.posix_fallocate(fd, 0, CAPTURE_HEAD + self.c.size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise ResourceError(f"no memory for a capture buffer of {self.c.size >> 20} MiB: "
                                f"give a smaller one") from None
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        base = mmap(NULL, CAPTURE_HEAD + self.c.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                    fd, 0)
        if base == MAP_FAILED:
            raise ResourceError(f"cannot map a capture buffer of {self.c.size >> 20} MiB: give a smaller one")
        self.c.page = <capture_page_t *>base
        self.c.records = <uint8_t *>base + CAPTURE_HEAD

    def _link(self):
        with self.nic.quiesced():
            self.c.next = self.nic.c.capture
            self.nic.c.capture = &self.c
            self._linked = True
        _LINKED.add(self)       # the engine holds its address

    def close(self):
        """Ends the capture: nothing is added any more; what is in the file stays there for its reader."""
        cdef capture_ring_t **at
        if not self._linked:
            return
        with self.nic.quiesced():
            at = &self.nic.c.capture
            while at[0] != &self.c:
                at = &at[0].next
            at[0] = self.c.next
            self._linked = False
        self._announce_rest()
        store_u64(&self.c.page.ended, 1)
        _LINKED.discard(self)
        os.close(self.fd)
        self.fd = -1

    def __dealloc__(self):
        if self.c.page != NULL:
            munmap(self.c.page, CAPTURE_HEAD + self.c.size)
        if self.fd >= 0:
            close(self.fd)

    @property
    def closed(self):
        return not self._linked

    @property
    def size(self):
        """Bytes of records."""
        return self.c.size

    @property
    def snaplen(self):
        """Bytes kept of a frame."""
        return self.c.snaplen

    @property
    def lost(self):
        """Frames that found no room."""
        return self.c.page.lost

    # --- contexts -----------------------------------------------------------------------------------------

    def add(self, index, name, mac):
        """Captures context `index` from now on, as the interface `name` with the address `mac` (bytes)."""
        self._check(index)
        name = name.encode("utf-8", "replace")[:300]
        with self.nic.quiesced():
            self._announce_rest()
            if self._announce(index, name, mac):
                self._unannounced.pop(index, None)
                self.c.wanted[<uint32_t>index >> 6] |= <uint64_t>1 << (<uint32_t>index & 63)
            else:                               # a reader that stands still; no frame gets a wrong name
                self.remove(index)
                self._unannounced[index] = name, mac

    def remove(self, index):
        """Captures context `index` no more."""
        self._check(index)
        with self.nic.quiesced():
            self._unannounced.pop(index, None)
            self.c.wanted[<uint32_t>index >> 6] &= ~(<uint64_t>1 << (<uint32_t>index & 63))

    def wants(self, index) -> bool:
        """Whether the frames of context `index` are captured."""
        self._check(index)
        return bool(self.c.wanted[<uint32_t>index >> 6] >> (<uint32_t>index & 63) & 1)

    def _check(self, index):
        whole("context", index, 0, self.nic.contexts - 1)
        if not self._linked:
            raise ConfigError("this capture was closed: start another")

    def _announce_rest(self):
        """What found no room before, if there is some now; the engine stands still."""
        for index, (name, mac) in list(self._unannounced.items()):
            if self._announce(index, name, mac):
                del self._unannounced[index]
                self.c.wanted[<uint32_t>index >> 6] |= <uint64_t>1 << (<uint32_t>index & 63)

    cdef bint _announce(self, uint32_t index, bytes name, bytes mac) except -1:
        """Writes an interface record, which may use the reserve. False: no room. The engine stands still."""
        cdef capture_ring_t *ring = &self.c
        cdef uint32_t len = <uint32_t>(sizeof(interface_t) + <size_t>PyBytes_GET_SIZE(name))
        cdef uint64_t needed = (CAPTURE_HEADER + len + 7) & ~7
        cdef uint64_t used = ring.producer - load_u64(&ring.page.consumer)
        cdef interface_t interface
        cdef record_t *record
        if used > ring.size or not capture_pad(ring, needed, ring.size - used):
            return False
        interface.lost_of = ring.page.lost_of[index]
        interface.mac = int.from_bytes(mac, "little")
        record = <record_t *>(ring.records + (ring.producer & (ring.size - 1)))
        memset(record, 0, CAPTURE_HEADER)
        record.size = <uint32_t>needed
        record.context = index
        record.direction = CAPTURE_INTERFACE
        record.len = record.caplen = len
        record.timestamp_ns = capture_stamp(ring)
        memcpy(<uint8_t *>record + CAPTURE_HEADER, &interface, sizeof(interface))
        memcpy(<uint8_t *>record + CAPTURE_HEADER + sizeof(interface), PyBytes_AS_STRING(name),
               PyBytes_GET_SIZE(name))
        ring.producer += needed
        store_u64(&ring.page.producer, ring.producer)
        return True


_LINKED = set()
