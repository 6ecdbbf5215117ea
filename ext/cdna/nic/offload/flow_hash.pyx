"""The hashes of flows on buffers of Python: for tests, and whoever wants to know a frame's queue."""

from libc.stdint cimport uint8_t, uint32_t

from cdna.abi cimport MIN_FRAME

from cdna.errors import ConfigError


cdef uint32_t _frame_length(Py_ssize_t bytes_) except? 0:
    if bytes_ < <int>MIN_FRAME or bytes_ >> 32:
        raise ConfigError(f"a frame of {bytes_} bytes: give {<int>MIN_FRAME} or more")
    return <uint32_t>bytes_


def hash_frame(const uint8_t[::1] frame not None):
    """The NIC's own hash of the flow that a frame belongs to, 32 bits."""
    return flow_hash(&frame[0], _frame_length(frame.shape[0]))


def hash_frame_rss(const uint8_t[::1] frame not None, const uint8_t[::1] key not None, uint32_t types):
    """(hash, HashReport) of a frame, as virtio's receive-side scaling has it: key of 40 bytes, HashTypes."""
    cdef toeplitz_t t
    cdef uint32_t hash = 0, report, length = _frame_length(frame.shape[0])
    if key.shape[0] != RSS_KEY:
        raise ConfigError(f"an RSS key of {key.shape[0]} bytes: give {<int>RSS_KEY}")
    toeplitz_init(&t, &key[0])
    report = rss_hash(&t, types, &frame[0], length, &hash)
    return hash, HashReport(report)
