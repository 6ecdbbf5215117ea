"""Frames from the wire: bytes, with work left to do or none, to receivers of every kind.

      input:  receivers | frame | frame | ...      a frame:  how, length (2 bytes), [offload, 8 bytes], bytes

The receivers are one machine (`fuzz/receivers.py`): access ports, trunks, with and without virtio-net
headers, small buffers, filters of multicast addresses, virtio guests with split and packed rings, merged
buffers, one queue and several; a promiscuous one if the input says so.
"""

from libc.stdint cimport uint8_t, uint32_t, uintptr_t
from libc.string cimport memset

from cdna.abi cimport CONTEXT_RUNNING, MAX_TSO_FRAME, PAGE_SIZE
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.device cimport Nic
from cdna.nic.engine cimport engine_poll
from cdna.nic.frame cimport frame_t
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.mapping cimport GuestMapping
from cdna.nic.virtio.queue cimport virtio_t
from fuzz.targets.fuzz_wire cimport FuzzWire, fuzz_wire_t, wire_give, wire_reset
from fuzz.targets.harness cimport fill_from, image_t, input_t, judged, keep, keep_nic, put_back, u8, u16

from cdna.abi import Takes
from fuzz.targets.fuzz_wire import FuzzWire as _FuzzWire

cdef enum:
    MAX_ROUNDS = 200
    LONGEST = 65700

cdef image_t _image
cdef nic_t *_nic
cdef fuzz_wire_t *_wire
cdef uint8_t _bytes[LONGEST]
_scene = None


def set_up():
    global _scene, _nic, _wire
    if _scene is not None:
        return
    from fuzz.receivers import RINGS, receivers

    wire = _FuzzWire(sum(Takes))
    _wire = (<FuzzWire>wire).state
    _wire.spoofed_ok = 1                # what a promiscuous guest's bridge might send; nobody sends here
    machine, virtio = receivers(wire)
    _scene = machine, virtio
    _nic = (<Nic>machine.nic).c
    _nic.irq.event_fd = -1
    for _ in range(8):
        engine_poll(_nic, 64)
    _keep_all(virtio, RINGS)


cdef _keep_all(virtio, size_t rings):
    cdef uint32_t i
    cdef context_t *context
    cdef GuestMapping mapping
    keep_nic(&_image, _nic)
    for i in range(_nic.contexts):
        context = &_nic.context[i]
        if context.state == CONTEXT_RUNNING:
            keep(&_image, context.page, PAGE_SIZE)
        if context.rings == RINGS_VIRTIO:
            keep(&_image, context.virtio, sizeof(virtio_t))
    for device in virtio:
        mapping = device.memory
        for i in range(mapping.c.regions):
            keep(&_image, mapping.c.region[i].base, rings)


cdef const char *one(const uint8_t *data, size_t size) noexcept nogil:
    cdef input_t input
    cdef frame_t like
    cdef uint8_t how
    cdef uint32_t len, i, left = MAX_ROUNDS
    input.at, input.left = data, size
    wire_reset(_wire)
    put_back(&_image)
    how = u8(&input)
    if how & 1:
        _nic.context[how >> 1 & 3].promiscuous = 1
        _nic.n_promiscuous = 1
    while input.left:
        how = u8(&input)
        len = u16(&input)
        if how & 1:
            len = (len << 1) % LONGEST
        elif how & 2 == 0:
            len &= 2047
        memset(&like, 0, sizeof(like))
        if how & 4:
            like.has_offload = 1
            like.offload.csum_start, like.offload.csum_offset = u16(&input), u16(&input)
            like.offload.mss, like.offload.hdr_len = u16(&input), u16(&input)
        if len > LONGEST:
            len = LONGEST
        i = <uint32_t>fill_from(&input, _bytes, how >> 3 if how < 0xF8 else 255)
        memset(_bytes + i, 0, len - i if len > i else 0)
        if how & 4 == 0 or like.offload.mss == 0:
            if len > MAX_TSO_FRAME:
                len = MAX_TSO_FRAME
        if not wire_give(_wire, _bytes, len, &like):
            engine_poll(_nic, 64)
            wire_give(_wire, _bytes, len, &like)
    while left and (engine_poll(_nic, 64) or _wire.waiting):
        left -= 1
    if left == 0:
        return b"the engine does not come to rest"
    for i in range(_nic.contexts):
        if _nic.context[i].fault:
            return b"a frame from the wire stopped its receiver"
    return _wire.trouble


cdef int _for_libfuzzer(const uint8_t *data, size_t size) noexcept nogil:
    return judged(one(data, size))


def address():
    """Of the function that libFuzzer calls."""
    set_up()
    return <uintptr_t>&_for_libfuzzer


def run(bytes data):
    """One input. AssertionError: it found something."""
    set_up()
    cdef const char *trouble = one(data, len(data))
    assert trouble == NULL, trouble.decode()
