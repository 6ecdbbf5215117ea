"""The frames of a capture, kept for a replay without a Python object each."""
# build: explored

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from cdna.errors import ConfigError

cdef enum:
    FIRST_CHUNK = 1 << 16       # bytes; each chunk is twice the one before, to LARGEST_CHUNK
    LARGEST_CHUNK = 1 << 23
    FIRST_ROOM = 256            # frames

CapturedFrame = namedtuple("CapturedFrame", ["data", "timestamp_ns", "wire_length"])


cdef int64_t _due(store_t *store, int64_t stamp, int64_t *latest) noexcept nogil:
    """Nanoseconds after the first frame at which a frame is due.

    A clock that was set back goes on from where it was. Stamps that go back a little do not mean that: frames
    of several queues or interfaces are written in batches, so they are due at once.
    latest: the greatest due time of the frame's own interface.
    """
    cdef int64_t due
    if not store.dated:
        store.dated = True
        store.base = stamp
    if store.base < 0 and stamp > <int64_t>DUE_MAX + store.base:
        due = DUE_MAX
    else:
        due = min(stamp - store.base, <int64_t>DUE_MAX)
    if due < store.due - INTERLEAVED or due < latest[0] - REORDERED:
        store.base = stamp - store.due
        due = store.due
    latest[0] = max(latest[0], due)
    return max(store.due, due)


cdef bint _grow(store_t *store, uint32_t len) noexcept nogil:
    """Makes room for one more frame. False: no memory."""
    cdef size_t size, room
    cdef chunk_t *chunk
    cdef captured_t *frame
    if store.frames == store.room:
        room = 2 * store.room if store.room else FIRST_ROOM
        frame = <captured_t *>realloc(store.frame, room * sizeof(captured_t))
        if frame == NULL:
            return False
        store.frame, store.room = frame, room
    if store.chunk == NULL or len > store.chunk.size - store.used:
        size = FIRST_CHUNK if store.chunk == NULL else min(2 * store.chunk.size, <size_t>LARGEST_CHUNK)
        size = max(size, <size_t>len)
        chunk = <chunk_t *>malloc(sizeof(chunk_t) + size)
        if chunk == NULL:
            return False
        chunk.before, chunk.size = store.chunk, size
        store.chunk, store.used = chunk, 0
    return True


cdef int store_add(store_t *store, const uint8_t *data, uint32_t len, uint32_t wire_len,
                   uint64_t timestamp_ns, int64_t *latest) noexcept nogil:
    """Appends a copy of a frame. timestamp_ns: below 2 ** 63. Returns 0, or -1: no memory.

    latest: NULL, the frame has no time stamp, or as of `_due`. A stamp of 0 behind others is none, either.
    """
    cdef captured_t *frame
    if not _grow(store, len):
        return -1
    if latest != NULL and (timestamp_ns or not store.dated):
        store.due = _due(store, <int64_t>timestamp_ns, latest)
    frame = &store.frame[store.frames]
    frame.data = <uint8_t *>store.chunk + sizeof(chunk_t) + store.used
    memcpy(frame.data, data, len)
    frame.len, frame.wire_len = len, wire_len
    frame.timestamp_ns, frame.due_ns = timestamp_ns, <uint64_t>store.due
    store.frames += 1
    store.used += len
    return 0


cdef class CapturedFrames:
    """A sequence of `CapturedFrame`s: data, nanoseconds since 1970 (0: none), length on the wire."""

    def __dealloc__(self):
        cdef chunk_t *chunk = self.c.chunk
        cdef chunk_t *before
        while chunk != NULL:
            before = chunk.before
            free(chunk)
            chunk = before
        free(self.c.frame)

    def append(self, bytes data, uint64_t timestamp_ns, wire_length=None):
        """Adds a frame. OverflowError: a time beyond the year 2262. ConfigError: a wire replays them."""
        cdef uint32_t len = <uint32_t>PyBytes_GET_SIZE(data)
        self.check_open()
        if timestamp_ns >> 63:
            raise OverflowError(f"{timestamp_ns} ns since 1970")
        if store_add(&self.c, <const uint8_t *>PyBytes_AS_STRING(data), len,
                     len if wire_length is None else wire_length, timestamp_ns, &self._latest):
            raise MemoryError

    cdef int check_open(self) except -1:
        """Raises ConfigError when a wire reads the table, which may not move any more."""
        if self.sealed:
            raise ConfigError("these frames are replayed already: read them into other CapturedFrames")
        return 0

    def due_ns(self, Py_ssize_t index):
        """Nanoseconds after the first frame at which frame `index` is due, if timing is as recorded."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.c.frame[index].due_ns

    def __len__(self):
        return self.c.frames

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        cdef Py_ssize_t at = index
        if at < 0:
            at += <Py_ssize_t>self.c.frames
        if not 0 <= at < <Py_ssize_t>self.c.frames:
            raise IndexError(index)
        cdef captured_t *frame = &self.c.frame[at]
        return CapturedFrame(PyBytes_FromStringAndSize(<char *>frame.data, frame.len),
                             frame.timestamp_ns, frame.wire_len)

    def __iter__(self):
        for i in range(len(self)):
            yield self[i]
