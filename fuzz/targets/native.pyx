"""Native rings and hypercalls: the input is what one hostile guest does, a byte an operation.

Its neighbours are honest, hold receive buffers and send when the input says so. In a build with
AddressSanitizer all of machine memory is forbidden but the attacker's own pages and the buffers that
neighbours have posted; in any other build a copy of it is compared.

      input:  who attacks | operation, arguments | operation, arguments | ...
"""

from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from cdna.abi cimport (
    CONTEXT_RUNNING, DESC_F_EOP, MAILBOX_RX_PRODUCER, MAILBOX_TX_PRODUCER,
    MAILBOXES, PAGE_SHIFT, PAGE_SIZE, PROTECTION_IOMMU, PROTECTION_VALIDATED, RING_RX, RING_TX, desc_t,
)
from cdna.doorbell cimport ring_doorbell
from cdna.memory cimport DOMID_FREE, DOMID_VMM, memory_t
from cdna.nic.context cimport context_t, ring_t
from cdna.nic.device cimport Nic
from cdna.nic.engine cimport engine_poll
from cdna.nic.frame cimport frame_t
from cdna.nic.state cimport nic_t
from cdna.sanitizer cimport allow, forbid, is_sanitized
from cdna.vmm.protection cimport (
    decode_interrupts, enqueue, iommu_map, iommu_unmap, reap, transfer, vcontext_t, vmm_t,
)
from cdna.vmm.tables cimport Tables
from fuzz.targets.fuzz_wire cimport FuzzWire, fuzz_wire_t, wire_give, wire_reset
from fuzz.targets.harness cimport (
    fill_from, image_t, input_t, judged, keep, keep_nic, put_back, u8, u16, u32, u64,
)

from cdna import ContextSettings, Machine
from cdna.abi import Takes
from fuzz.targets.fuzz_wire import FuzzWire as _FuzzWire

cdef enum:
    ATTACKERS = 4
    GUESTS = 7
    PAGES = 8                   # of each guest
    RING_SIZE = 8
    RX_POSTED = 6               # buffers of each guest at the beginning, of BUFFER bytes from page 0 on
    BUFFER = 2048
    SPARE = 3                   # first page without a buffer
    NEIGHBOUR_TX = 6            # page from which neighbours send
    MAX_ROUNDS = 400            # at the end, until nothing moves any more

cdef enum:
    OP_ENQUEUE
    OP_DOORBELL
    OP_POLL
    OP_WRITE
    OP_HEADER
    OP_RING
    OP_MAP
    OP_UNMAP
    OP_TRANSFER
    OP_REAP
    OP_WIRE_FRAME
    OP_WIRE_ROOM
    OP_LINK
    OP_NEIGHBOUR
    OP_PAGE
    OP_INTERRUPTS
    OP_OPTION
    OP_SEND
    OPERATIONS

cdef struct guest_t:
    uint32_t context
    uint32_t domain
    uint32_t protection
    uint64_t maddr
    uint64_t mac
    uint32_t posted[2]          # by Ring: what its driver has posted

cdef guest_t _guest[7]
cdef image_t _image
cdef nic_t *_nic
cdef vmm_t *_vmm
cdef fuzz_wire_t *_wire
cdef uint8_t *_memory           # a copy of machine memory
_machine = None


# --- the scene --------------------------------------------------------------------------------------------

_KINDS = (
    {},
    {"protection": "iommu:single-use"},
    {"vnet_header": True, "vlan": "trunk", "takes": sum(Takes)},
    {"protection": "iommu:shared", "vnet_header": True, "vlan": 5, "remote": True},
    {"multicast": ("01:00:5e:00:00:01",), "weight": 3},
    {"vnet_header": True, "takes": sum(Takes)},
    {"vlan": 5, "all_multicast": True, "rate": 1e12},
)


def set_up():
    """Makes the scene that every input begins with."""
    global _machine, _nic, _vmm, _wire, _memory
    if _machine is not None:
        return
    wire = _FuzzWire(sum(Takes))
    _machine = Machine(GUESTS * PAGES * PAGE_SIZE, wire=wire, contexts=GUESTS, max_ring=RING_SIZE,
                       interrupt_frames=2, interrupt_us=0.0)
    _nic = (<Nic>_machine.nic).c
    _vmm = (<Tables>_machine.vmm.tables).c
    _wire = (<FuzzWire>wire).state
    for i, settings in enumerate(_KINDS):
        guest = _machine.vmm.create_guest(f"guest{i}", PAGES * PAGE_SIZE)
        context = _machine.vmm.assign(
            guest,
            ContextSettings(tx_ring=RING_SIZE, rx_ring=RING_SIZE, seq_modulus=2 * RING_SIZE, **settings))
        _know(i, context.index, guest.domain, guest.maddr)
    _nic.irq.event_fd = -1
    _settle()
    _keep_all()


cdef _know(uint32_t i, uint32_t context, uint32_t domain, uint64_t maddr):
    cdef guest_t *guest = &_guest[i]
    cdef uint32_t page[PAGES]
    cdef uint32_t io_page[PAGES]
    cdef desc_t desc
    cdef uint32_t n
    guest.context, guest.domain, guest.maddr = context, domain, maddr
    guest.protection = _nic.context[context].protection
    guest.mac = _nic.context[context].mac
    _wire.sender[i] = guest.mac
    _wire.senders = i + 1
    for n in range(PAGE_SIZE * PAGES // 8):
        (<uint64_t *>(_nic.memory.base + maddr))[n] = <uint64_t>0x5EC2E700000000 * (i + 1) + n
    for n in range(PAGES):
        page[n] = <uint32_t>(maddr >> PAGE_SHIFT) + n
        io_page[n] = n
    if guest.protection == PROTECTION_IOMMU:
        iommu_map(_vmm, domain, context, io_page, page, PAGES - 2)      # the input maps the others
    for n in range(RX_POSTED):
        desc.addr, desc.len, desc.flags, desc.seq = n * BUFFER, BUFFER, 0, 0
        _post(guest, RING_RX, &desc)
    _announce(guest, RING_RX, guest.posted[<int>RING_RX])


cdef void _settle() noexcept nogil:
    cdef int _
    for _ in range(8):
        engine_poll(_nic, 64)


cdef void _keep_all() noexcept nogil:
    cdef uint32_t i
    cdef memory_t *memory = _nic.memory
    cdef context_t *context
    keep_nic(&_image, _nic)
    keep(&_image, _vmm, sizeof(vmm_t) + GUESTS * sizeof(vcontext_t))
    keep(&_image, memory.page, memory.pages * sizeof(memory.page[0]))
    for i in range(GUESTS):
        context = &_nic.context[_guest[i].context]
        keep(&_image, context.page, PAGE_SIZE)
        keep(&_image, context.tx.desc, RING_SIZE * sizeof(desc_t))
        keep(&_image, context.rx.desc, RING_SIZE * sizeof(desc_t))
        keep(&_image, context.rx.completion, RING_SIZE * 8)
        if context.io_page != NULL:
            keep(&_image, context.io_page, context.io_pages * 8)
    keep(&_image, _guest, sizeof(_guest))
    keep(&_image, memory.base, memory.size)
    global _memory
    _memory = _image.part[_image.parts - 1].copy


cdef void _begin(const guest_t *attacker) noexcept nogil:
    """Everything as at the beginning; the attacker's own memory and posted buffers may be touched."""
    cdef memory_t *memory = _nic.memory
    cdef uint32_t i
    wire_reset(_wire)
    allow(memory.base, memory.size)
    put_back(&_image)
    forbid(memory.base, memory.size)
    for i in range(GUESTS):
        allow(memory.base + _guest[i].maddr, RX_POSTED * BUFFER)
        allow(memory.base + _guest[i].maddr + NEIGHBOUR_TX * PAGE_SIZE, PAGE_SIZE)
    allow(memory.base + attacker.maddr, PAGES * PAGE_SIZE)


# --- what guests do ---------------------------------------------------------------------------------------

cdef int _post(guest_t *guest, uint32_t ring, const desc_t *desc) noexcept nogil:
    """As a driver does; `addr` is an offset in the guest's memory. Returns how many: 1 or 0."""
    cdef context_t *context = &_nic.context[guest.context]
    cdef ring_t *r = &context.tx if ring == RING_TX else &context.rx
    cdef desc_t request = desc[0]
    if guest.protection == PROTECTION_VALIDATED:
        request.addr += guest.maddr
        if enqueue(_vmm, guest.domain, guest.context, ring, &request, 1) != 1:
            return 0
    else:
        r.desc[guest.posted[ring] & (RING_SIZE - 1)] = request
    guest.posted[ring] += 1
    return 1


cdef void _announce(const guest_t *guest, uint32_t ring, uint32_t producer) noexcept nogil:
    cdef context_t *context = &_nic.context[guest.context]
    ring_doorbell(context.page, MAILBOX_TX_PRODUCER if ring == RING_TX else MAILBOX_RX_PRODUCER, producer,
                  NULL if context.polled else _nic.doorbell, guest.context)


cdef uint64_t _address(const guest_t *guest, input_t *input) noexcept nogil:
    """An address that a descriptor could have: of its own memory, mostly."""
    cdef uint8_t kind = u8(input)
    cdef uint64_t base = guest.maddr if guest.protection == PROTECTION_VALIDATED else 0
    if kind < 0xC0:                     # near the beginning of some page of its own
        base += <uint64_t>(kind & 7) << PAGE_SHIFT
        return base + (<uint64_t>(kind >> 3) << 4) if kind & 0x80 else base
    if kind < 0xE0:
        return base + u16(input)
    if kind < 0xF0:                     # a neighbour's, or around the end of memory
        return <uint64_t>(kind & 7) * PAGES * PAGE_SIZE + u16(input)
    if kind < 0xF8:
        return _nic.memory.size - u16(input)
    return u64(input)


cdef void _desc(const guest_t *guest, input_t *input, desc_t *desc) noexcept nogil:
    cdef uint8_t shape = u8(input)
    desc.flags = shape & 3
    if shape & 4:                       # an offload descriptor has other fields there
        desc.addr = u64(input)
    else:
        desc.addr = _address(guest, input)
    desc.len = u16(input) if shape & 8 else <uint16_t>(u8(input))
    desc.seq = u8(input) if shape & 16 else 0
    if shape & 32:
        desc.flags = u16(input)


cdef void _op_enqueue(guest_t *guest, input_t *input) noexcept nogil:
    cdef desc_t request[8]
    cdef uint8_t how = u8(input)
    cdef uint32_t ring = how & 1, n = how >> 1 & 7, i
    cdef uint32_t domain = guest.domain, context = guest.context
    cdef int taken
    if how & 0x10:                      # about somebody else's context, also as a domain that has none
        if u8(input) & 1:               # never as a neighbour: the VMM knows whose a hypercall is
            domain = GUESTS + 1
        context = u8(input) % (GUESTS + 1)
        ring = u8(input)
    for i in range(n):
        _desc(guest, input, &request[i])
    taken = enqueue(_vmm, domain, context, ring, request, n)
    if taken > 0 and context == guest.context:
        guest.posted[ring] += taken
        if how & 0x20:
            _announce(guest, ring, guest.posted[ring])


cdef void _op_ring(guest_t *guest, input_t *input) noexcept nogil:
    """Its own ring, where a guest writes it; and in `validated` the next one, as a driver does."""
    cdef desc_t desc
    cdef uint8_t how = u8(input)
    cdef uint32_t ring = how & 1
    cdef context_t *context = &_nic.context[guest.context]
    cdef ring_t *r = &context.tx if ring == RING_TX else &context.rx
    _desc(guest, input, &desc)
    if guest.protection == PROTECTION_VALIDATED:
        return
    if how & 2:
        r.desc[how >> 2 & (RING_SIZE - 1)] = desc
        return
    r.desc[guest.posted[ring] & (RING_SIZE - 1)] = desc
    guest.posted[ring] += 1
    if not how & 4:
        _announce(guest, ring, guest.posted[ring])


cdef void _op_doorbell(guest_t *guest, input_t *input) noexcept nogil:
    cdef uint8_t how = u8(input)
    cdef uint32_t ring = how & 1
    cdef context_t *context = &_nic.context[guest.context]
    if how & 2:
        ring_doorbell(context.page, (how >> 2) % <int>MAILBOXES, u32(input), _nic.doorbell, guest.context)
    else:
        _announce(guest, ring, guest.posted[ring] + <uint32_t>(<int8_t>u8(input) if how & 4 else 0))


cdef void _put_header(const guest_t *guest, uint8_t *at, input_t *input) noexcept nogil:
    """An Ethernet header, and the beginning of an IP packet; perhaps behind a virtio-net header."""
    cdef uint8_t how = u8(input)
    cdef uint64_t to = _guest[how & 7].mac if how & 7 < GUESTS else <uint64_t>0xFFFFFFFFFFFF
    cdef uint16_t type = 0x0008
    if how & 8:
        memset(at, 0, 12)
        fill_from(input, at, 10)
        at += 12
    if how & 16:
        to = 0x0100005E0001
    memcpy(at, &to, 6)
    memcpy(at + 6, &guest.mac, 6)
    if how & 32:                        # tagged
        at[12], at[13], at[14], at[15] = 0x81, 0, u8(input), u8(input)
        at += 4
    if how & 64:
        type = 0xDD86
        at[14] = 0x60
        at[20] = 17 if how & 128 else 6
    else:
        at[14] = 0x45
        at[23] = 17 if how & 128 else 6
    memcpy(at + 12, &type, 2)


cdef bint _owns(const guest_t *guest, uint32_t offset) noexcept nogil:
    """Whether a page is still the guest's: with what it has given away it can do nothing."""
    return _nic.memory.page[(guest.maddr + offset) >> PAGE_SHIFT].owner == guest.domain


cdef void _op_write(const guest_t *guest, input_t *input, bint header) noexcept nogil:
    """Bytes of one page."""
    cdef uint32_t at = u16(input) & (PAGES * PAGE_SIZE - 1), room = PAGE_SIZE - (at & (PAGE_SIZE - 1)), n
    if not _owns(guest, at):
        return
    if header:
        if room >= 128:
            _put_header(guest, _nic.memory.base + guest.maddr + at, input)
        return
    n = u8(input)
    fill_from(input, _nic.memory.base + guest.maddr + at, n if n < room else room)


cdef void _op_send(guest_t *guest, input_t *input) noexcept nogil:
    """A frame as a driver sends it: a header and a descriptor, or two."""
    cdef uint8_t how = u8(input)
    cdef uint32_t at = SPARE * PAGE_SIZE + (how & 7) * 256
    cdef desc_t desc
    if not _owns(guest, at):
        return
    _put_header(guest, _nic.memory.base + guest.maddr + at, input)
    desc.addr, desc.len, desc.flags, desc.seq = at, u16(input), DESC_F_EOP, 0
    if how & 8 and desc.len > 1:        # in two
        desc.len //= 2
        desc.flags = 0
        _post(guest, RING_TX, &desc)
        desc.addr += desc.len
        desc.flags = DESC_F_EOP
    _post(guest, RING_TX, &desc)
    _announce(guest, RING_TX, guest.posted[<int>RING_TX])


cdef void _op_transfer(guest_t *guest, input_t *input) noexcept nogil:
    """Pages given away are somebody else's from then on."""
    cdef uint32_t page[4]
    cdef uint8_t how = u8(input)
    cdef uint32_t to = how >> 2 & 7, n = (how & 3) + 1, i
    for i in range(n):
        page[i] = <uint32_t>(guest.maddr >> PAGE_SHIFT) + u8(input) % (PAGES + 2)
    to = _guest[to].domain if to < GUESTS else DOMID_FREE
    if transfer(_vmm, guest.domain, to, page, n) == <int>n and to != guest.domain:
        for i in range(n):
            forbid(_nic.memory.base + (<uint64_t>page[i] << PAGE_SHIFT), PAGE_SIZE)


cdef void _op_map(guest_t *guest, input_t *input, bint unmap) noexcept nogil:
    cdef uint32_t io_page[4]
    cdef uint32_t page[4]
    cdef uint8_t how = u8(input)
    cdef uint32_t n = (how & 3) + 1, first = <uint32_t>(guest.maddr >> PAGE_SHIFT), i
    for i in range(n):
        io_page[i] = u8(input)
        if how & 4:
            io_page[i] = u32(input)
        if not unmap:
            page[i] = u32(input) if how & 8 else first + u8(input) % (PAGES + 1)
    if unmap:
        iommu_unmap(_vmm, guest.domain, guest.context, io_page, n)
    else:
        iommu_map(_vmm, guest.domain, guest.context, io_page, page, n)


# --- what others do ---------------------------------------------------------------------------------------

cdef void _op_neighbour(input_t *input) noexcept nogil:
    """An honest frame of a neighbour's."""
    cdef uint8_t how = u8(input)
    cdef guest_t *guest = &_guest[ATTACKERS + how % (GUESTS - ATTACKERS)]
    cdef uint8_t *at = _nic.memory.base + guest.maddr + NEIGHBOUR_TX * PAGE_SIZE
    cdef desc_t desc
    cdef uint64_t to = _guest[how >> 4 & 7].mac if how >> 4 & 7 < GUESTS else <uint64_t>0xFFFFFFFFFFFF
    cdef uint32_t header = 12 if _nic.context[guest.context].vnet_header else 0
    memset(at, 0, header)
    memcpy(at + header, &to, 6)
    memcpy(at + header + 6, &guest.mac, 6)
    at[header + 12] = 0x88
    desc.addr, desc.flags, desc.seq = NEIGHBOUR_TX * PAGE_SIZE, DESC_F_EOP, 0
    desc.len = <uint16_t>(header + 60 + <uint32_t>u8(input) * 8)
    if _post(guest, RING_TX, &desc):
        _announce(guest, RING_TX, guest.posted[<int>RING_TX])


cdef void _op_wire_frame(input_t *input) noexcept nogil:
    cdef uint8_t bytes_[2048]
    cdef frame_t like
    cdef uint8_t how = u8(input)
    cdef uint64_t to = _guest[how & 7].mac if how & 7 < GUESTS else <uint64_t>0xFFFFFFFFFFFF
    cdef uint32_t len = u8(input)
    if how & 8:
        len = len * 8
    memset(bytes_, 0, sizeof(bytes_))
    memset(&like, 0, sizeof(like))
    if how & 16:
        like.has_offload = 1
        like.offload.csum_start, like.offload.csum_offset = u16(input), u16(input)
        like.offload.mss, like.offload.hdr_len = u16(input), u16(input)
    if how & 32:                        # all of it is the input's
        fill_from(input, bytes_, len)
    else:
        memcpy(bytes_, &to, 6)
        bytes_[6] = 2
        fill_from(input, bytes_ + 12, u8(input) & 63)
    wire_give(_wire, bytes_, len, &like)


cdef void _op_option(input_t *input) noexcept nogil:
    """The operator changes something of a context."""
    cdef uint8_t how = u8(input)
    cdef context_t *context = &_nic.context[_guest[(how & 7) % GUESTS].context]
    cdef uint8_t on = how >> 3 & 1
    if how >> 4 & 3 == 0 and context.state == CONTEXT_RUNNING:
        _nic.n_promiscuous += on
        _nic.n_promiscuous -= context.promiscuous
        context.promiscuous = on
    elif how >> 4 & 3 == 1:
        context.all_multicast = on
    elif how >> 4 & 3 == 2:
        context.weight = 1 + 99 * on
    else:
        _nic.wire.offloads = u8(input) & 127


cdef void _post_nothing(uint32_t context, void *arg) noexcept nogil:
    pass


cdef void _operation(guest_t *guest, uint8_t op, input_t *input) noexcept nogil:
    cdef context_t *context = &_nic.context[guest.context]
    cdef uint8_t how
    if op == OP_ENQUEUE:
        _op_enqueue(guest, input)
    elif op == OP_DOORBELL:
        _op_doorbell(guest, input)
    elif op == OP_POLL:
        engine_poll(_nic, u8(input) & 127)
    elif op == OP_WRITE or op == OP_HEADER:
        _op_write(guest, input, op == OP_HEADER)
    elif op == OP_RING:
        _op_ring(guest, input)
    elif op == OP_MAP or op == OP_UNMAP:
        _op_map(guest, input, op == OP_UNMAP)
    elif op == OP_TRANSFER:
        _op_transfer(guest, input)
    elif op == OP_REAP:
        reap(_vmm, guest.context)
    elif op == OP_WIRE_FRAME:
        _op_wire_frame(input)
    elif op == OP_WIRE_ROOM:
        _wire.room = u8(input) & 63
    elif op == OP_LINK:
        _nic.wire.link = u8(input) & 1
    elif op == OP_NEIGHBOUR:
        _op_neighbour(input)
    elif op == OP_PAGE:
        how = u8(input)
        fill_from(input, <uint8_t *>context.page + u16(input) % (PAGE_SIZE - 255), how)
    elif op == OP_INTERRUPTS:
        decode_interrupts(_vmm, _post_nothing, NULL)
    elif op == OP_OPTION:
        _op_option(input)
    elif op == OP_SEND:
        _op_send(guest, input)


# --- what has to be so at the end -------------------------------------------------------------------------

cdef const char *_verdict(const guest_t *attacker) noexcept nogil:
    cdef memory_t *memory = _nic.memory
    cdef const guest_t *guest
    cdef context_t *context
    cdef uint32_t i, left = MAX_ROUNDS
    _wire.room = 1 << 30
    while left and (engine_poll(_nic, 64) or _nic.tso_context != NULL or _nic.txq_tail):
        left -= 1
    if left == 0:
        return b"the engine does not come to rest"
    for i in range(GUESTS):
        guest = &_guest[i]
        context = &_nic.context[guest.context]
        if guest == attacker:
            continue
        if context.state != CONTEXT_RUNNING:
            return b"a neighbour was stopped"
        if context.tx.consumer != guest.posted[<int>RING_TX]:
            return b"a neighbour's frame was not sent"
    for i in range(memory.pages):
        if memory.page[i].pins > 4096:
            return b"more pins were dropped than taken"
        if memory.page[i].owner == DOMID_VMM:
            return b"a page became the VMM's"
    return _wire.trouble if is_sanitized() else _compare(attacker)


cdef const char *_compare(const guest_t *attacker) noexcept nogil:
    """What nobody has posted is as it was."""
    cdef memory_t *memory = _nic.memory
    cdef uint64_t at
    cdef uint32_t i
    for i in range(GUESTS):
        at = _guest[i].maddr
        if &_guest[i] == attacker:
            continue
        if memcmp(memory.base + at + RX_POSTED * BUFFER, _memory + at + RX_POSTED * BUFFER,
                  (NEIGHBOUR_TX * PAGE_SIZE) - RX_POSTED * BUFFER) != 0 or \
                memcmp(memory.base + at + (NEIGHBOUR_TX + 1) * PAGE_SIZE,
                       _memory + at + (NEIGHBOUR_TX + 1) * PAGE_SIZE, PAGE_SIZE) != 0:
            return b"foreign memory was written"
    return _wire.trouble


cdef const char *one(const uint8_t *data, size_t size) noexcept nogil:
    cdef input_t input
    cdef guest_t *attacker
    input.at, input.left = data, size
    attacker = &_guest[u8(&input) % ATTACKERS]
    _begin(attacker)
    while input.left:
        _operation(attacker, u8(&input) % OPERATIONS, &input)
    return _verdict(attacker)


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
