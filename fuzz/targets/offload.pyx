"""Offloads and headers: a virtio-net header and a frame through everything that reads them.

      input:  mode | virtio-net header, 10 bytes | how much longer, 2 bytes | the frame's first bytes

The frame lies in an allocation of its own length, and so does every segment that is made of it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from cdna.abi cimport MAX_TSO_FRAME, MIN_FRAME, OFFLOAD_UDP_FRAGMENTS, offload_t, vnet_header_t
from cdna.nic.demux cimport header_t, parse_header
from cdna.nic.frame cimport piece_t
from cdna.nic.offload.checksum cimport fold, htons, sum_bytes
from cdna.nic.offload.flow_hash cimport RSS_KEY, flow_hash, rss_hash, toeplitz_init, toeplitz_t
from cdna.nic.offload.fragment_id cimport FRAGMENT_SECRET, begin_fragment_ids, fragment_ids_t
from cdna.nic.offload.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_finish, checksum_ok
from cdna.nic.offload.vnet cimport offload_fault, read_vnet, takes_needed, write_vnet
from fuzz.targets.harness cimport fill_from, input_t, judged, u8, u16

cdef enum:
    SPARE = 8                   # bytes behind a frame that can be read: so it is in the NIC's own buffers

cdef toeplitz_t _toeplitz
cdef uint8_t _key[RSS_KEY]
cdef fragment_ids_t _fragment_ids
cdef bint _ready = False


cdef const char *_hashes(const uint8_t *frame, uint32_t len) noexcept nogil:
    cdef uint32_t hash = 0, types, report
    flow_hash(frame, len)
    for types in range(0, 512, 73):
        report = rss_hash(&_toeplitz, types, frame, len, &hash)
        if report == 0 and hash:
            return b"a hash of nothing"
        if report > 9:
            return b"a hash report that there is not"
    return NULL


cdef bint _agrees(const uint8_t *frame, uint32_t len, const offload_t *o, const uint8_t *out,
                  uint32_t n) noexcept nogil:
    """Whether the checksum of a segment of `n` bytes is what the partial sum of the frame makes it."""
    cdef uint32_t start = o.csum_start
    cdef uint16_t partial = 0
    memcpy(&partial, frame + start + o.csum_offset, 2)
    return fold(sum_bytes(out + start, n - start) + partial + htons(<uint16_t>(n - start)) +
                <uint16_t>~htons(<uint16_t>(len - start))) in (0, 0xFFFF)


cdef const char *_cut(const uint8_t *frame, uint32_t len, const offload_t *o) noexcept nogil:
    """All segments of a frame, each in memory of its own; together they are the frame's payload."""
    cdef segmentation_t s
    cdef uint8_t *out
    cdef uint32_t n, total = 0, payload, before
    cdef bint fragments = o.hdr_len & OFFLOAD_UDP_FRAGMENTS
    cdef const char *trouble = NULL
    if segment_begin(&s, frame, len, o):
        return NULL
    payload = len - s.hdr_len
    while s.segments and trouble == NULL:
        before = s.segments
        out = <uint8_t *>malloc(s.segment_max)
        n = segment_next(&s, &_fragment_ids, out, s.segment_max)
        if n == 0 or n > s.segment_max or s.segments + 1 != before:
            trouble = b"a segment did not fit into the room that it was said to need"
        elif n <= s.hdr_len + s.added:
            trouble = b"a segment without payload"
        else:
            total += n - s.hdr_len - s.added
            if not fragments and not _agrees(frame, len, o, out, n):
                trouble = b"a segment with a wrong checksum"
        free(out)
    if trouble == NULL and total != payload:
        trouble = b"segments that are not the whole frame"
    return trouble


cdef const char *_judge(const vnet_header_t *vnet, uint8_t *frame, uint32_t len) noexcept nogil:
    cdef offload_t offload
    cdef offload_t again
    cdef header_t header
    cdef piece_t piece
    cdef vnet_header_t back
    cdef bint wanted = False, still = False
    cdef const char *trouble = _hashes(frame, len)
    memset(&offload, 0, sizeof(offload))
    parse_header(&header, frame)
    checksum_ok(frame, len)
    if trouble != NULL or read_vnet(vnet, frame, len, len, &offload, &wanted) or not wanted:
        return trouble
    if offload_fault(frame, len, &offload):
        return b"an offload that was accepted and is refused"
    takes_needed(&offload, frame, len)
    piece.data, piece.len = frame, len
    write_vnet(&back, &offload, &piece, 0)
    if read_vnet(&back, frame, len, len, &again, &still) or not still or \
            memcmp(&offload, &again, sizeof(offload_t)) != 0 and offload.mss and offload.csum_offset:
        return b"a header that another receiver would not understand"
    if offload.mss:
        return _cut(frame, len, &offload)
    if checksum_finish(frame, len, &offload):
        return b"a checksum that was accepted and cannot be done"
    return NULL


cdef const char *_as_descriptor(input_t *input, uint8_t *frame, uint32_t len) noexcept nogil:
    """The fields as an offload descriptor has them, with nothing checked before."""
    cdef offload_t offload
    offload.csum_start, offload.csum_offset = u16(input), u16(input)
    offload.mss, offload.hdr_len = u16(input), u16(input)
    u16(input)
    if offload_fault(frame, len, &offload):
        return NULL
    takes_needed(&offload, frame, len)
    if offload.mss:
        return _cut(frame, len, &offload)
    checksum_finish(frame, len, &offload)
    return NULL


cdef const char *one(const uint8_t *data, size_t size) noexcept nogil:
    cdef input_t input
    cdef input_t fields
    cdef vnet_header_t vnet
    cdef uint8_t *frame
    cdef uint8_t mode
    cdef uint32_t len
    cdef const char *trouble
    input.at, input.left = data, size
    mode = u8(&input)
    fields = input
    memset(&vnet, 0, sizeof(vnet))
    fill_from(&input, <uint8_t *>&vnet, 10)
    len = u16(&input) if mode & 1 else 0
    if mode & 8:
        len *= 2
    len += input.left
    if len > <uint32_t>MAX_TSO_FRAME + 64:
        len = MAX_TSO_FRAME + 64
    if len < MIN_FRAME:
        return NULL
    frame = <uint8_t *>calloc(1, len + SPARE)
    fill_from(&input, frame, len)
    if mode & 2:
        trouble = _as_descriptor(&fields, frame, len)
    else:
        trouble = _judge(&vnet, frame, len)
    free(frame)
    return trouble


cdef int _for_libfuzzer(const uint8_t *data, size_t size) noexcept nogil:
    return judged(one(data, size))


def set_up():
    global _ready
    cdef uint32_t i
    if not _ready:
        for i in range(<int>RSS_KEY):
            _key[i] = <uint8_t>(i * 7 + 1)
        toeplitz_init(&_toeplitz, _key)
        begin_fragment_ids(&_fragment_ids, bytes(<int>FRAGMENT_SECRET))
        _ready = True


def address():
    """Of the function that libFuzzer calls."""
    set_up()
    return <uintptr_t>&_for_libfuzzer


def run(bytes data):
    """One input. AssertionError: it found something."""
    set_up()
    cdef const char *trouble = one(data, len(data))
    assert trouble == NULL, trouble.decode()
