"""The blocks of a pcapng file (capture_walk.pyx)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cdna.nic.capture_walk cimport (
    BLOCK, BLOCK_END, BLOCK_LONG, BLOCK_SHORT, BLOCK_SIZE, END_OF_BLOCK, LONGEST_BLOCK, NO_INTERFACE,
    OPTION_SIZE, PACKET, PCAPNG_VERSION, SECTION_ORDER, get16, get32, get64, interface_t, keep_packet, more,
    nanoseconds, new_interface, next_option, options_t, refuse, walk_t,
)

cdef enum:                      # block types, byte orders, options
    SECTION = 0x0A0D0D0A
    INTERFACE = 1
    OLD_PACKET = 2
    SIMPLE_PACKET = 3
    NAMES = 4
    STATISTICS = 5
    ENHANCED_PACKET = 6
    JOURNAL = 9
    SECRETS = 10
    CUSTOM = 0x00000BAD
    CUSTOM_NOT_COPIED = 0x40000BAD
    BYTE_ORDER = 0x1A2B3C4D
    BYTE_ORDER_SWAPPED = 0x4D3C2B1A
    OPT_PACKET_FLAGS = 2
    OPT_TSRESOL = 9
    OPT_FCSLEN = 13
    OPT_TSOFFSET = 14


cdef inline int64_t begin_section(walk_t *walk, const uint8_t *at, uint32_t total) noexcept nogil:
    if total < 28:
        return refuse(walk, BLOCK_SHORT, total, 28)
    if get16(walk, at + 12) != 1 or get16(walk, at + 14) not in (0, 2):
        return refuse(walk, PCAPNG_VERSION, get16(walk, at + 12), get16(walk, at + 14))
    walk.interfaces = 0                     # each section has its own
    return 0


cdef inline int64_t describe_interface(walk_t *walk, const uint8_t *at, uint32_t total) noexcept nogil:
    """An Interface Description Block. Of an option given twice the first is taken, as tshark does."""
    cdef options_t options
    cdef uint32_t code, len, seen = 0
    cdef const uint8_t *value
    cdef interface_t *interface
    cdef int64_t found
    if total < 20:
        return refuse(walk, BLOCK_SHORT, total, 20)
    interface = new_interface(walk)
    if interface == NULL:
        return -1
    interface.linktype = get16(walk, at + 8)
    interface.snaplen = get32(walk, at + 12)
    options.at, options.left = at + 16, total - 20
    while True:
        found = next_option(walk, &options, &code, &len, &value)
        if found <= 0:
            return found
        if code > 31 or seen >> code & 1:
            continue
        if code == OPT_TSRESOL and len == 1:
            interface.resolution = value[0]
        elif code == OPT_FCSLEN and len == 1:
            interface.fcs = value[0]
        elif code == OPT_TSOFFSET and len == 8:
            interface.offset = <int64_t>get64(walk, value)
        else:
            continue
        seen |= <uint32_t>1 << code


cdef inline int64_t flags_fcs(walk_t *walk, const uint8_t *at, size_t left, uint32_t *fcs) noexcept nogil:
    """Bits 5 to 8 of a packet's flags: the length of its FCS, where it is not 0."""
    cdef options_t options
    cdef uint32_t code, len, flags
    cdef const uint8_t *value
    cdef int64_t found
    options.at, options.left = at, left
    while True:
        found = next_option(walk, &options, &code, &len, &value)
        if found <= 0:
            return found
        if code != OPT_PACKET_FLAGS:
            continue
        if len != 4:
            return refuse(walk, OPTION_SIZE, len, 4)
        flags = get32(walk, value) >> 5 & 15
        if flags:
            fcs[0] = flags


cdef inline int64_t packet_block(walk_t *walk, const uint8_t *at, uint32_t total, bint old) noexcept nogil:
    """An Enhanced Packet Block, or its predecessor with a shorter number of the interface."""
    cdef uint32_t number, fcs
    cdef uint64_t len, padded, ns = 0
    cdef interface_t *interface
    if total < 32:
        return refuse(walk, BLOCK_SHORT, total, 32)
    number = get16(walk, at + 8) if old else get32(walk, at + 8)
    if number >= walk.interfaces:
        return refuse(walk, NO_INTERFACE, number, walk.interfaces)
    interface = &walk.interface[number]
    len = get32(walk, at + 20)
    padded = (len + 3) & ~<uint64_t>3
    if padded > total - 32:
        return refuse(walk, BLOCK_SHORT, total, padded + 32)
    fcs = interface.fcs
    if flags_fcs(walk, at + 28 + padded, total - 32 - padded, &fcs):
        return -1
    if nanoseconds(walk, interface, <uint64_t>get32(walk, at + 12) << 32 | get32(walk, at + 16), &ns):
        return -1
    return keep_packet(walk, interface, at + 28, len, get32(walk, at + 24), ns, True, fcs)


cdef inline int64_t simple_block(walk_t *walk, const uint8_t *at, uint32_t total) noexcept nogil:
    """A Simple Packet Block: of the first interface, no time, cut to its snapshot length."""
    cdef uint64_t len, wire_len
    if total < 16:
        return refuse(walk, BLOCK_SHORT, total, 16)
    if walk.interfaces == 0:
        return refuse(walk, NO_INTERFACE, 0, 0)
    wire_len = len = get32(walk, at + 8)
    if walk.interface[0].snaplen:
        len = min(len, <uint64_t>walk.interface[0].snaplen)
    if ((len + 3) & ~<uint64_t>3) != total - 16:
        return refuse(walk, BLOCK_SHORT, total, ((len + 3) & ~<uint64_t>3) + 16)
    return keep_packet(walk, walk.interface, at + 12, len, wire_len, 0, False, walk.interface[0].fcs)


cdef inline uint32_t least_of(uint32_t kind) noexcept nogil:
    """Bytes that a block of this type has at least."""
    if kind == STATISTICS:
        return 24
    if kind == JOURNAL:
        return 36
    if kind == SECRETS:
        return 20
    return 16 if kind in (NAMES, CUSTOM, CUSTOM_NOT_COPIED) else 12


cdef inline int64_t pcapng_block(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    cdef uint32_t kind, total
    cdef int64_t failed = 0
    cdef bint packet
    if left < 12:
        return more(walk, BLOCK, 12)
    kind = get32(walk, at)
    if kind == SECTION:                     # reads the same in both byte orders
        walk.swapped = False
        if get32(walk, at + 8) not in (BYTE_ORDER, BYTE_ORDER_SWAPPED):
            return refuse(walk, SECTION_ORDER)
        walk.swapped = get32(walk, at + 8) == BYTE_ORDER_SWAPPED
    total = get32(walk, at + 4)
    if total < 12 or total & 3:
        return refuse(walk, BLOCK_SIZE, total)
    packet = kind in (OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET)
    if not packet and kind not in (SECTION, INTERFACE):
        if total < least_of(kind):
            return refuse(walk, BLOCK_SHORT, total, least_of(kind))
        walk.skip, walk.total = total - 12, total
        return 8
    if total > LONGEST_BLOCK:
        return refuse(walk, BLOCK_LONG, total)
    if left < total:
        return more(walk, PACKET if packet else BLOCK, total)
    if get32(walk, at + total - 4) != total:
        return refuse(walk, BLOCK_END, total, get32(walk, at + total - 4))
    if kind == SECTION:
        failed = begin_section(walk, at, total)
    elif kind == INTERFACE:
        failed = describe_interface(walk, at, total)
    elif kind == SIMPLE_PACKET:
        failed = simple_block(walk, at, total)
    else:
        failed = packet_block(walk, at, total, kind == OLD_PACKET)
    return -1 if failed else total


cdef inline int64_t rest_of_block(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    """Passes over what a block of another type holds, and checks its end."""
    cdef uint64_t passed = min(walk.skip, <uint64_t>left)
    if passed:
        walk.skip -= passed
        return <int64_t>passed
    if walk.skip or left < 4:
        return more(walk, END_OF_BLOCK, walk.skip + 4)
    if get32(walk, at) != walk.total:
        return refuse(walk, BLOCK_END, walk.total, get32(walk, at))
    walk.total = 0
    return 4
