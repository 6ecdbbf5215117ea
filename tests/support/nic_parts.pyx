"""Parts of the NIC on buffers of Python: offloads, hashes of flows, what a capture or a generator is told."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport FAULT_NONE, offload_t
from cdna.cpu cimport store_u64
from cdna.nic.capture_ring cimport capture_all
from cdna.nic.device cimport Nic
from cdna.nic.frame cimport piece_t
from cdna.nic.generator cimport GeneratorWire
from cdna.nic.offload.checksum cimport get_u16, put_checksum, sum_bytes
from cdna.nic.offload.flow_hash cimport flow_hash, rss_hash, toeplitz_init, toeplitz_t
from cdna.nic.offload.fragment_id cimport (
    FRAGMENT_SECRET, begin_fragment_ids, fragment_ids_t, next_fragment_id,
)
from cdna.nic.offload.ip cimport ip_t, parse_ip
from cdna.nic.offload.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_finish, checksum_ok

import os

cdef fragment_ids_t _fragment_ids
begin_fragment_ids(&_fragment_ids, os.urandom(<int>FRAGMENT_SECRET))


def internet_checksum(const uint8_t[::1] data not None):
    """The checksum of RFC 1071 over `data`, as a number in network order."""
    cdef uint8_t checksum[2]
    put_checksum(checksum, sum_bytes(&data[0], data.shape[0]), False)
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
    return checksum_finish(&frame[0], frame.shape[0], &o)


def verify_checksum(const uint8_t[::1] frame not None):
    """Whether a frame is TCP or UDP over IPv4 or IPv6 and its transport checksum is right."""
    return bool(checksum_ok(&frame[0], frame.shape[0]))


def transport_header(const uint8_t[::1] frame not None):
    """Where the transport header of an IP packet begins, bytes; None: it is none, or cut short."""
    cdef ip_t ip
    return ip.transport if parse_ip(&ip, &frame[0], frame.shape[0]) else None


def segment(const uint8_t[::1] frame not None, uint8_t[::1] out not None,
            uint16_t csum_start, uint16_t csum_offset, uint16_t mss, uint16_t hdr_len):
    """Cuts a large frame into segments of at most `mss` bytes of payload, laid end to end in `out`.

    hdr_len has the OffloadKind in its two top bits: TCP, UDP datagrams, or fragments of one.

    Returns (fault, lengths): 0 and the length in bytes of each segment, or Fault.FAULT_OFFLOAD and none.
    Stops where the next segment has no room in `out`.
    """
    cdef segmentation_t s
    cdef offload_t o
    cdef uint32_t room = out.shape[0], used = 0, n, fault
    cdef list lengths = []
    o.csum_start = csum_start
    o.csum_offset = csum_offset
    o.mss = mss
    o.hdr_len = hdr_len
    fault = segment_begin(&s, &frame[0], frame.shape[0], &o)
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
    assert secret.shape[0] == FRAGMENT_SECRET
    begin_fragment_ids(&ids, &secret[0])
    return [next_fragment_id(&ids) for _ in range(count)]


def hash_frame(const uint8_t[::1] frame not None):
    """The NIC's own hash of the flow that a frame, of at least 14 bytes, belongs to: 32 bits."""
    return flow_hash(&frame[0], frame.shape[0])


def hash_frame_rss(const uint8_t[::1] frame not None, const uint8_t[::1] key not None, uint32_t types):
    """(hash, HashReport) of a frame, as virtio's receive-side scaling has it: key of 40 bytes, HashTypes."""
    cdef toeplitz_t t
    cdef uint32_t hash = 0, report
    toeplitz_init(&t, &key[0])
    report = rss_hash(&t, types, &frame[0], frame.shape[0], &hash)
    return hash, report


def capture_frames(Nic nic not None, uint32_t context, uint32_t direction, uint32_t reason, bytes frame,
                   uint32_t times=1):
    """Has the NIC's capture ring a frame as the engine adds it, `times` times."""
    cdef piece_t piece
    piece.data = <const uint8_t *>PyBytes_AS_STRING(frame)
    piece.len = <uint32_t>PyBytes_GET_SIZE(frame)
    with nic.quiesced():
        for _ in range(times):
            capture_all(nic.c.capture, context, direction, reason, &piece, piece.len)


def acknowledge(GeneratorWire wire not None, uint32_t flow, uint64_t frames):
    """Tells a generator that the receiver has taken `frames` frames of a flow since the start."""
    store_u64(&wire.generator.flow[flow].own_ack, frames)
