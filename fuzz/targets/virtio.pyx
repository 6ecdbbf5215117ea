"""Virtio rings: the input is what a hostile driver writes into its memory, a byte an operation.

There is a machine for each set of features, with one virtio guest and two honest native neighbours. The
guest's regions are allocations of their own, so that AddressSanitizer sees the first byte beside them;
machine memory is forbidden but for the neighbours' buffers.

      input:  which features | operation, arguments | operation, arguments | ...

      region 0:   0x000 queue 0   0x200 queue 1   ...   0x800 buffers
                  each queue: descriptors, 0x80 driver's area, 0xC0 device's area
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy, memset

from cdna.abi cimport (
    CONTEXT_RUNNING, DESC_F_EOP, MAILBOX_RX_PRODUCER, MAILBOX_TX_PRODUCER, PAGE_SIZE, RING_RX, RING_TX,
    desc_t,
)
from cdna.doorbell cimport ring_doorbell
from cdna.memory cimport memory_t
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.device cimport Nic
from cdna.nic.engine cimport engine_poll
from cdna.nic.frame cimport frame_t
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.mapping cimport GuestMapping
from cdna.nic.virtio.memory cimport guest_memory_t
from cdna.nic.virtio.notify cimport ask_all_for_kicks
from cdna.nic.virtio.queue cimport virtio_t, virtqueue_t
from cdna.sanitizer cimport allow, forbid, is_sanitized
from cdna.virtio cimport (
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED, vring_avail_t, vring_desc_t, vring_packed_desc_t,
)
from cdna.vmm.protection cimport enqueue, vcontext_t, vmm_t
from cdna.vmm.tables cimport Tables
from fuzz.targets.fuzz_wire cimport FuzzWire, fuzz_wire_t, wire_give, wire_reset
from fuzz.targets.harness cimport (
    fill_from, image_t, input_t, judged, keep, keep_nic, put_back, u8, u16, u32, u64,
)

import os

from cdna import ContextSettings, Machine
from cdna.abi import Takes
from cdna.nic.virtio.device import Region, VirtioDevice
from cdna.virtio import Feature
from fuzz.targets.fuzz_wire import FuzzWire as _FuzzWire

cdef enum:
    SCENES = 8
    REGIONS = 3
    QUEUE_STRIDE = 0x200
    BUFFERS = 0x800             # in region 0
    NEIGHBOURS = 2
    PAGES = 8                   # of each native neighbour
    RX_POSTED = 6
    BUFFER = 2048
    NEIGHBOUR_TX = 6            # page
    RING_SIZE = 8               # of native neighbours
    MAX_ROUNDS = 400

cdef enum:
    OP_CHAIN
    OP_POLL
    OP_WRITE
    OP_EXPOSE
    OP_HEADER
    OP_SEND
    OP_WIRE_FRAME
    OP_NEIGHBOUR
    OP_WIRE_ROOM
    OP_RECEIVE
    OP_KICKS
    OP_GONE
    OP_LINK
    OPERATIONS

cdef struct driver_t:           # the honest part of a driver, by queue
    uint16_t avail
    uint16_t slot
    uint8_t wrap

cdef struct scene_t:
    nic_t *nic
    vmm_t *vmm
    fuzz_wire_t *wire
    context_t *context
    virtio_t *virtio
    guest_memory_t *memory
    uint64_t mac[3]             # the virtio guest's and the neighbours'
    uint32_t neighbour[2]       # contexts
    uint32_t domain[2]
    uint64_t maddr[2]
    uint32_t posted[2]
    driver_t driver[4]
    image_t image
    uint8_t *copy               # of machine memory

cdef uint64_t _address[3]       # of the regions
cdef uint64_t _size[3]
_address[0], _address[1], _address[2] = 0x10000, 0x13000, 1 << 32      # the first two adjoin
_size[0], _size[1], _size[2] = 0x3000, 0x1000, 0x17C0
cdef uint64_t USER = 0x7F0000000000     # of address 0, in the frontend's process
cdef scene_t _scene[8]
_machines = []


# --- the scenes -------------------------------------------------------------------------------------------

_OFFLOADS = ("CSUM", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6", "GUEST_ECN", "GUEST_UFO", "GUEST_USO4",
             "GUEST_USO6", "HOST_TSO4", "HOST_TSO6", "HOST_ECN", "HOST_UFO", "HOST_USO")
_SCENES = (     # features, size of the rings, pairs, what else
    ("MRG_RXBUF INDIRECT_DESC EVENT_IDX VERSION_1 offloads", 8, 1, ""),
    ("MRG_RXBUF INDIRECT_DESC EVENT_IDX VERSION_1 RING_PACKED IN_ORDER offloads", 7, 1, ""),
    ("", 8, 1, ""),
    ("VERSION_1 RING_PACKED", 7, 1, ""),
    ("MRG_RXBUF INDIRECT_DESC VERSION_1 offloads", 8, 2, "rss log inflight"),
    ("MRG_RXBUF INDIRECT_DESC VERSION_1 RING_PACKED offloads", 8, 2, "log inflight"),
    ("INDIRECT_DESC EVENT_IDX offloads", 8, 1, "rate"),
    ("MRG_RXBUF INDIRECT_DESC EVENT_IDX VERSION_1 RING_PACKED", 8, 1, "vlan"),
)


def _features(words):
    names = []
    for word in words.split():
        names += _OFFLOADS if word == "offloads" else [word]
    bits = 0
    for name in names:
        known = Feature.__members__
        bits |= 1 << known.get(f"VIRTIO_F_{name}", known.get(f"VIRTIO_NET_F_{name}"))
    return bits


def set_up():
    """Makes the machines that inputs begin with."""
    if not _machines:
        for i, what in enumerate(_SCENES):
            _make(i, *what)


def _make(int number, features, size, pairs, extras):
    cdef scene_t *scene = &_scene[number]
    wire = _FuzzWire(sum(Takes))
    machine = Machine(NEIGHBOURS * PAGES * PAGE_SIZE + PAGE_SIZE, wire=wire, contexts=3, max_ring=RING_SIZE,
                      interrupt_frames=2, interrupt_us=0.0)
    scene.nic = (<Nic>machine.nic).c
    scene.nic.irq.event_fd = -1
    scene.vmm = (<Tables>machine.vmm.tables).c
    scene.wire = (<FuzzWire>wire).state
    options = {"rate": 1e12} if "rate" in extras else {"vlan": 5} if "vlan" in extras else {}
    guest = machine.vmm.create_guest("virtio", PAGE_SIZE)
    context = machine.vmm.assign(guest, ContextSettings(
        protection="table", tx_ring=RING_SIZE, rx_ring=RING_SIZE, **options))
    scene.context = &scene.nic.context[<int>context.index]
    device = _device(machine, context.index, _features(features), size, pairs, extras, number)
    scene.virtio = scene.context.virtio
    scene.mac[0] = scene.context.mac
    for i, settings in enumerate(({"vnet_header": True, "takes": sum(Takes)}, {"promiscuous": False})):
        _neighbour(machine, number, i, {**settings, **options})
    for _ in range(8):
        engine_poll(scene.nic, 64)
    _machines.append((machine, device, wire))
    _keep_all(scene)


def _device(machine, index, features, size, pairs, extras, int number):
    cdef scene_t *scene = &_scene[number]
    cdef GuestMapping mapping
    device = VirtioDevice(machine.nic, index, pairs=pairs)
    files = [os.memfd_create("fuzz", os.MFD_CLOEXEC) for _ in range(REGIONS + 2)]
    for fd in files:
        os.ftruncate(fd, 1 << 16)
    device.set_memory([
        Region(_address[i], _size[i], _address[i] + USER, files[i], 0) for i in range(REGIONS)])
    mapping = device.memory
    scene.memory = mapping.c
    for i in range(REGIONS):            # allocations with something on either side that is forbidden
        scene.memory.region[<int>i].base = <uint8_t *>calloc(1, _size[i])
    device.set_features(features)
    if "inflight" in extras:
        device.set_inflight(files[REGIONS], 4096, 0, 2 * pairs, size)
    for i in range(2 * pairs):
        at = _address[0] + USER + i * QUEUE_STRIDE
        device.set_size(i, size)
        device.set_addresses(i, at, at + 0x80, at + 0xC0,
                             _address[0] + i * QUEUE_STRIDE + 0xC0 if "log" in extras else None)
        device.start(i)
        device.enable(i, True)
        scene.driver[<int>i].wrap = 1
    if "rss" in extras:
        device.set_rss(511, bytes(range(40)), [0, 1, 1, 0], 1)
    if "log" in extras:
        device.set_log(files[REGIONS + 1], 64, 0)
        scene.memory.log = <uint8_t *>calloc(1, 64)
    for fd in files:
        os.close(fd)
    return device


def _neighbour(machine, int number, int i, settings):
    cdef scene_t *scene = &_scene[number]
    cdef desc_t desc
    cdef uint32_t n
    guest = machine.vmm.create_guest(f"neighbour{i}", PAGES * PAGE_SIZE)
    context = machine.vmm.assign(guest, ContextSettings(tx_ring=RING_SIZE, rx_ring=RING_SIZE, **settings))
    scene.neighbour[i], scene.domain[i], scene.maddr[i] = context.index, guest.domain, guest.maddr
    scene.mac[i + 1] = scene.nic.context[scene.neighbour[i]].mac
    for n in range(RX_POSTED):
        desc.addr, desc.len, desc.flags, desc.seq = scene.maddr[i] + n * BUFFER, BUFFER, 0, 0
        enqueue(scene.vmm, scene.domain[i], scene.neighbour[i], RING_RX, &desc, 1)
    ring_doorbell(scene.nic.context[scene.neighbour[i]].page, MAILBOX_RX_PRODUCER, RX_POSTED,
                  scene.nic.doorbell, scene.neighbour[i])


cdef void _keep_all(scene_t *scene) noexcept nogil:
    cdef uint32_t i
    cdef context_t *context
    cdef memory_t *memory = scene.nic.memory
    for i in range(3):
        scene.wire.sender[i] = scene.mac[i]
    scene.wire.senders = 3
    keep_nic(&scene.image, scene.nic)
    keep(&scene.image, scene.vmm, sizeof(vmm_t) + 3 * sizeof(vcontext_t))
    keep(&scene.image, memory.page, memory.pages * sizeof(memory.page[0]))
    keep(&scene.image, scene.virtio, sizeof(virtio_t))
    keep(&scene.image, scene.memory, sizeof(guest_memory_t))
    keep(&scene.image, scene.driver, sizeof(scene.driver))
    keep(&scene.image, scene.posted, sizeof(scene.posted))
    for i in range(3):
        context = &scene.nic.context[i]
        keep(&scene.image, context.page, PAGE_SIZE)
        if context.rings != RINGS_VIRTIO:
            keep(&scene.image, context.tx.desc, RING_SIZE * sizeof(desc_t))
            keep(&scene.image, context.rx.desc, RING_SIZE * sizeof(desc_t))
            keep(&scene.image, context.rx.completion, RING_SIZE * 8)
    for i in range(REGIONS):
        keep(&scene.image, scene.memory.region[i].base, _size[i])
    if scene.memory.log != NULL:
        keep(&scene.image, scene.memory.log, scene.memory.log_size)
    if scene.memory.inflight != NULL:
        keep(&scene.image, scene.memory.inflight, scene.memory.inflight_size)
    keep(&scene.image, memory.base, memory.size)
    scene.copy = scene.image.part[scene.image.parts - 1].copy


cdef void _begin(scene_t *scene) noexcept nogil:
    cdef memory_t *memory = scene.nic.memory
    cdef uint32_t i
    wire_reset(scene.wire)
    allow(memory.base, memory.size)
    put_back(&scene.image)
    forbid(memory.base, memory.size)
    for i in range(NEIGHBOURS):
        allow(memory.base + scene.maddr[i], RX_POSTED * BUFFER)
        allow(memory.base + scene.maddr[i] + NEIGHBOUR_TX * PAGE_SIZE, PAGE_SIZE)


# --- what the driver does ---------------------------------------------------------------------------------

cdef uint64_t _guest_address(input_t *input, uint32_t *len) noexcept nogil:
    """An address and a length that a descriptor could have; near the ends of regions, mostly."""
    cdef uint8_t kind = u8(input)
    cdef uint32_t region = (kind & 3) % REGIONS
    len[0] = u16(input) if kind & 4 else <uint32_t>u8(input)
    if kind < 0x80:                     # some place in a region
        return _address[region] + BUFFERS + <uint64_t>(kind >> 3) * 0x100
    if kind < 0xC0:
        return _address[region] + _size[region] - u8(input)
    if kind < 0xE0:
        return _address[region] + u16(input)
    if kind < 0xF0:
        len[0] = u32(input)
        return _address[region] + u16(input)
    return u64(input)


cdef uint8_t *_at(const scene_t *scene, uint64_t addr, uint32_t len) noexcept nogil:
    """The driver's own view of its memory; NULL: none of it."""
    cdef uint32_t i
    for i in range(REGIONS):
        if addr - _address[i] < _size[i] and len <= _size[i] - (addr - _address[i]):
            return scene.memory.region[i].base + (addr - _address[i])
    return NULL


cdef void _put(scene_t *scene, uint32_t queue, const vring_desc_t *chain, uint32_t n,
               bint expose) noexcept nogil:
    """Writes a chain into the ring, in its format, over whatever is there, and makes it available."""
    cdef virtqueue_t *q = &scene.virtio.queue[queue]
    cdef driver_t *driver = &scene.driver[queue]
    cdef vring_avail_t *avail = <vring_avail_t *>q.driver
    cdef vring_packed_desc_t *packed
    cdef vring_desc_t *split
    cdef uint16_t head = driver.slot, flags
    cdef uint32_t i
    for i in range(n):
        if q.packed:
            packed = &(<vring_packed_desc_t *>q.desc)[driver.slot]
            packed.addr, packed.len, packed.id = chain[i].addr, chain[i].len, head
            flags = chain[i].flags & <uint16_t>~(VRING_PACKED_DESC_F_AVAIL | VRING_PACKED_DESC_F_USED)
            packed.flags = flags | <uint16_t>(
                VRING_PACKED_DESC_F_AVAIL if driver.wrap else VRING_PACKED_DESC_F_USED)
        else:
            split = &(<vring_desc_t *>q.desc)[driver.slot]
            split[0] = chain[i]
            split.next = (driver.slot + 1) % q.size
        driver.slot += 1
        if driver.slot == q.size:
            driver.slot = 0
            driver.wrap ^= 1
    if not q.packed and expose:
        avail.ring[driver.avail & (q.size - 1)] = head
        driver.avail += 1
        avail.idx = driver.avail


cdef void _op_chain(scene_t *scene, input_t *input) noexcept nogil:
    """A chain of any descriptors, in the ring or in a table."""
    cdef vring_desc_t chain[8]
    cdef vring_desc_t one
    cdef uint8_t *table
    cdef uint8_t how = u8(input), flags
    cdef uint32_t queue = (how & 3) % (2 * scene.virtio.pairs), n = (how >> 2 & 7) + 1, i, len = 0
    for i in range(n):
        flags = u8(input)
        chain[i].addr = _guest_address(input, &len)
        chain[i].len = len
        chain[i].next = i + 1
        chain[i].flags = VRING_DESC_F_NEXT if i + 1 < n else 0
        if not queue & 1:
            chain[i].flags |= VRING_DESC_F_WRITE
        chain[i].flags ^= flags & 7
        if flags & 8:
            chain[i].next = u8(input) & 15
        if flags & 16:
            chain[i].flags = u16(input)
    if how & 0x20:                      # the same in a table
        one.addr = _guest_address(input, &len)
        one.len, one.flags, one.next = 16 * n, VRING_DESC_F_INDIRECT, 0
        if how & 0x40:
            one.len = len
        table = _at(scene, one.addr, 16 * n)
        if table != NULL:
            memcpy(table, chain, 16 * n)
        _put(scene, queue, &one, 1, not how & 0x80)
    else:
        _put(scene, queue, chain, n, not how & 0x80)


cdef void _op_receive(scene_t *scene, input_t *input) noexcept nogil:
    """Good receive buffers."""
    cdef vring_desc_t desc
    cdef uint8_t how = u8(input)
    cdef uint32_t queue = (how & 1) * 2 % (2 * scene.virtio.pairs), n = (how >> 1 & 7) + 1, i
    cdef uint32_t len = (<uint32_t>u8(input) + 1) * 8
    for i in range(n):
        desc.addr = _address[i % REGIONS] + BUFFERS + i * 0x80
        desc.len, desc.flags, desc.next = len, VRING_DESC_F_WRITE, 0
        _put(scene, queue, &desc, 1, True)


cdef void _op_expose(scene_t *scene, input_t *input) noexcept nogil:
    """Any number in the available ring, or any descriptor's flags."""
    cdef uint8_t how = u8(input)
    cdef uint32_t queue = (how & 3) % (2 * scene.virtio.pairs)
    cdef virtqueue_t *q = &scene.virtio.queue[queue]
    cdef vring_avail_t *avail = <vring_avail_t *>q.driver
    if q.packed:
        (<vring_packed_desc_t *>q.desc)[u8(input) % q.size].flags = u16(input)
    elif how & 4:
        avail.idx = u16(input)
    elif how & 8:                       # used_event
        avail.ring[q.size] = u16(input)
    else:
        avail.ring[scene.driver[queue].avail & (q.size - 1)] = u8(input)
        scene.driver[queue].avail += how >> 4
        avail.idx = scene.driver[queue].avail


cdef void _put_header(const scene_t *scene, uint8_t *at, input_t *input) noexcept nogil:
    """A virtio-net header, an Ethernet header, and the beginning of an IP packet."""
    cdef uint8_t how = u8(input)
    cdef uint64_t to = scene.mac[how & 3] if how & 3 < 3 else <uint64_t>0xFFFFFFFFFFFF
    cdef uint16_t type = 0x0008
    memset(at, 0, scene.virtio.header)
    if how & 4:
        fill_from(input, at, 10)
    at += scene.virtio.header
    memcpy(at, &to, 6)
    memcpy(at + 6, &scene.mac[0], 6)
    if how & 8:
        at[12], at[13], at[14], at[15] = 0x81, 0, u8(input), u8(input)
        at += 4
    if how & 16:
        type = 0xDD86
        at[14] = 0x60
        at[20] = 17 if how & 32 else 6
    else:
        at[14] = 0x45
        at[23] = 17 if how & 32 else 6
    if how & 64:
        fill_from(input, at + 14, 60)
    memcpy(at + 12, &type, 2)


cdef void _op_send(scene_t *scene, input_t *input) noexcept nogil:
    """A frame as a driver sends it, in so many pieces."""
    cdef vring_desc_t chain[4]
    cdef vring_desc_t table
    cdef uint8_t how = u8(input)
    cdef uint32_t queue = ((how & 1) * 2 + 1) % (2 * scene.virtio.pairs), n = (how >> 1 & 3) + 1, i, len, part
    cdef uint64_t at = _address[0] + BUFFERS + <uint64_t>(how >> 4) * 0x100
    _put_header(scene, _at(scene, at, 256), input)
    len = u16(input) % 0x2000
    for i in range(n):
        part = len if i + 1 == n else len // (n + 1)
        chain[i].addr, chain[i].len = at, part
        chain[i].flags, chain[i].next = VRING_DESC_F_NEXT if i + 1 < n else 0, i + 1
        at += part
        len -= part
    if how & 8 and scene.virtio.queue[queue].indirect:
        table.addr, table.len, table.flags, table.next = _address[2], 16 * n, VRING_DESC_F_INDIRECT, 0
        memcpy(_at(scene, table.addr, 64), chain, 16 * n)
        _put(scene, queue, &table, 1, True)
    else:
        _put(scene, queue, chain, n, True)


cdef void _op_write(scene_t *scene, input_t *input, bint header) noexcept nogil:
    cdef uint8_t region = u8(input) % REGIONS
    cdef uint64_t at = u16(input) % _size[region], room = _size[region] - at, n
    if header:
        if room >= 160:
            _put_header(scene, scene.memory.region[region].base + at, input)
        return
    n = u8(input)
    fill_from(input, scene.memory.region[region].base + at, n if n < room else room)


# --- what others do ---------------------------------------------------------------------------------------

cdef void _op_neighbour(scene_t *scene, input_t *input) noexcept nogil:
    cdef uint8_t how = u8(input)
    cdef uint32_t i = how & 1, header = 0 if i else 12
    cdef uint8_t *at = scene.nic.memory.base + scene.maddr[i] + NEIGHBOUR_TX * PAGE_SIZE
    cdef desc_t desc
    cdef uint64_t to = scene.mac[how >> 1 & 3] if how >> 1 & 3 < 3 else <uint64_t>0xFFFFFFFFFFFF
    memset(at, 0, PAGE_SIZE)
    memcpy(at + header, &to, 6)
    memcpy(at + header + 6, &scene.mac[i + 1], 6)
    at[header + 12], at[header + 14], at[header + 23] = 8, 0x45, 17 if how & 8 else 6
    at[header + 34] = how
    if header and how & 16:             # with work left to do
        at[0] = 1
        at[1] = 1 if not how & 8 else 5
        at[4], at[6], at[8] = 100, 34, 16 if not how & 8 else 6
        at[header + 46] = 0x50
    desc.addr, desc.flags, desc.seq = scene.maddr[i] + NEIGHBOUR_TX * PAGE_SIZE, DESC_F_EOP, 0
    desc.len = <uint16_t>(header + 60 + <uint32_t>u8(input) * 8)
    if enqueue(scene.vmm, scene.domain[i], scene.neighbour[i], RING_TX, &desc, 1) != 1:
        return
    scene.posted[i] += 1
    ring_doorbell(scene.nic.context[scene.neighbour[i]].page, MAILBOX_TX_PRODUCER, scene.posted[i],
                  scene.nic.doorbell, scene.neighbour[i])


cdef void _op_wire_frame(scene_t *scene, input_t *input) noexcept nogil:
    cdef uint8_t bytes_[4096]
    cdef frame_t like
    cdef uint8_t how = u8(input)
    cdef uint64_t to = scene.mac[how & 3] if how & 3 < 3 else <uint64_t>0xFFFFFFFFFFFF
    cdef uint32_t len = <uint32_t>u8(input) * (16 if how & 8 else 1)
    memset(bytes_, 0, sizeof(bytes_))
    memset(&like, 0, sizeof(like))
    if how & 16:
        like.has_offload = 1
        like.offload.csum_start, like.offload.csum_offset = u16(input), u16(input)
        like.offload.mss, like.offload.hdr_len = u16(input), u16(input)
    memcpy(bytes_, &to, 6)
    bytes_[6] = 2
    fill_from(input, bytes_ + 12, u8(input) & 63)
    wire_give(scene.wire, bytes_, len, &like)


cdef void _operation(scene_t *scene, uint8_t op, input_t *input) noexcept nogil:
    if op == OP_CHAIN:
        _op_chain(scene, input)
    elif op == OP_POLL:
        engine_poll(scene.nic, u8(input) & 127)
    elif op == OP_WRITE or op == OP_HEADER:
        _op_write(scene, input, op == OP_HEADER)
    elif op == OP_EXPOSE:
        _op_expose(scene, input)
    elif op == OP_SEND:
        _op_send(scene, input)
    elif op == OP_WIRE_FRAME:
        _op_wire_frame(scene, input)
    elif op == OP_NEIGHBOUR:
        _op_neighbour(scene, input)
    elif op == OP_WIRE_ROOM:
        scene.wire.room = u8(input) & 63
    elif op == OP_RECEIVE:
        _op_receive(scene, input)
    elif op == OP_KICKS:
        ask_all_for_kicks(scene.nic, u8(input) & 1)
    elif op == OP_GONE:
        scene.memory.gone = u8(input) == 0xFF
    elif op == OP_LINK:
        scene.virtio.link = u8(input) & 1


# --- what has to be so at the end -------------------------------------------------------------------------

cdef const char *_verdict(scene_t *scene) noexcept nogil:
    cdef context_t *context
    cdef uint32_t i, left = MAX_ROUNDS
    cdef uint64_t at
    scene.wire.room = 1 << 30
    while left and (engine_poll(scene.nic, 64) or scene.nic.tso_context != NULL or scene.nic.txq_tail):
        left -= 1
    if left == 0:
        return b"the engine does not come to rest"
    for i in range(NEIGHBOURS):
        context = &scene.nic.context[scene.neighbour[i]]
        if context.state != CONTEXT_RUNNING:
            return b"a neighbour was stopped"
        if context.tx.consumer != scene.posted[i]:
            return b"a neighbour's frame was not sent"
        at = scene.maddr[i] + RX_POSTED * BUFFER
        if not is_sanitized() and memcmp(scene.nic.memory.base + at, scene.copy + at,
                                         NEIGHBOUR_TX * PAGE_SIZE - RX_POSTED * BUFFER) != 0:
            return b"foreign memory was written"
    return scene.wire.trouble


cdef const char *one(const uint8_t *data, size_t size) noexcept nogil:
    cdef input_t input
    cdef scene_t *scene
    input.at, input.left = data, size
    scene = &_scene[u8(&input) % SCENES]
    _begin(scene)
    while input.left:
        _operation(scene, u8(&input) % OPERATIONS, &input)
    return _verdict(scene)


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
