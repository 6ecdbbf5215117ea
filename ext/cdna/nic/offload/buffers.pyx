"""The offloads on buffers of Python: for tests, benchmarks, and whoever wants to see a frame cut."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cdna.abi cimport FAULT_NONE, offload_t
from cdna.nic.offload.checksum cimport get_u16, put_checksum, sum_bytes
from cdna.nic.offload.fragment_id cimport (
    FRAGMENT_SECRET, begin_fragment_ids, fragment_ids_t, next_fragment_id,
)
from cdna.nic.offload.ip cimport ip_t, parse_ip
from cdna.nic.offload.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_finish, checksum_ok

import os

from cdna.errors import ConfigError

cdef fragment_ids_t _fragment_ids
begin_fragment_ids(&_fragment_ids, os.urandom(<int>FRAGMENT_SECRET))


cdef uint32_t _length(Py_ssize_t bytes_) except? 0xFFFFFFFF:
    if bytes_ >= 0xFFFFFFFF:
        raise ConfigError(f"a buffer of {bytes_} bytes: a frame has less than 4 GiB")
    return <uint32_t>bytes_


def internet_checksum(const uint8_t[::1] data not None):
    """The checksum of RFC 1071 over `data`, as a number in network order."""
    cdef uint8_t checksum[2]
    put_checksum(checksum, sum_bytes(&data[0], _length(data.shape[0])), False)
    return get_u16(checksum)


def finish_checksum(uint8_t[::1] frame not None, uint16_t csum_start, uint16_t csum_offset):
    """Completes a transmit checksum in place (virtio 1.2, 5.1.6.2).

    `csum_start` and `csum_offset` are bytes, from the frame's start and from `csum_start`. Returns 0, or
    Fault.FAULT_OFFLOAD with the frame unchanged where they do not lie within it.
    """
    cdef offload_t o
    o.csum_start = csum_start
    o.csum_offset = csum_offset
    o.mss = o.hdr_len = 0
    return checksum_finish(&frame[0], _length(frame.shape[0]), &o)


def verify_checksum(const uint8_t[::1] frame not None):
    """Whether a frame is TCP or UDP over IPv4 or IPv6 and its transport checksum is right."""
    return bool(checksum_ok(&frame[0], _length(frame.shape[0])))


def transport_header(const uint8_t[::1] frame not None):
    """Where the transport header of an IP packet begins, bytes; None: it is none, or cut short."""
    cdef ip_t ip
    return ip.transport if parse_ip(&ip, &frame[0], _length(frame.shape[0])) else None


def segment(const uint8_t[::1] frame not None, uint8_t[::1] out not None,
            uint16_t csum_start, uint16_t csum_offset, uint16_t mss, uint16_t hdr_len):
    """Cuts a large frame into segments of at most `mss` bytes of payload, laid end to end in `out`.

    hdr_len has the OffloadKind in its two top bits: TCP, UDP datagrams, or fragments of one.

    Returns (fault, lengths): 0 and the length in bytes of each segment, or Fault.FAULT_OFFLOAD and none.
    Stops where the next segment has no room in `out`.
    """
    cdef segmentation_t s
    cdef offload_t o
    cdef uint32_t room = _length(out.shape[0]), used = 0, n, fault
    cdef list lengths = []
    o.csum_start = csum_start
    o.csum_offset = csum_offset
    o.mss = mss
    o.hdr_len = hdr_len
    fault = segment_begin(&s, &frame[0], _length(frame.shape[0]), &o)
    while fault == FAULT_NONE:
        n = segment_next(&s, &_fragment_ids, &out[0] + used, room - used)
        if n == 0:
            break
        lengths.append(n)
        used += n
    return fault, lengths


def fragment_identifications(const uint8_t[::1] secret not None, uint32_t count):
    """The first `count` identifications of IPv6 fragments that a NIC with this secret gives out.

    secret: 12 bytes, the key of Speck32/64 and the first value of the counter, little-endian.
    """
    cdef fragment_ids_t ids
    if secret.shape[0] != FRAGMENT_SECRET:
        raise ConfigError(f"a secret of {secret.shape[0]} bytes: give {<int>FRAGMENT_SECRET}")
    begin_fragment_ids(&ids, &secret[0])
    return [next_fragment_id(&ids) for _ in range(count)]
