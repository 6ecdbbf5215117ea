"""Reads captures as other programs write them: pcap, modified pcap and pcapng, in pieces of any size.

What is refused, and what is read, is as tshark does it; docs/wires.md lists the differences.
"""
# build: explored

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from cdna.abi cimport Limits
from cdna.nic.captured cimport DUE_MAX, CapturedFrames, store_add

from cdna.errors import ConfigError, ResourceError

cdef enum:
    PCAP_MICROSECONDS = 0xA1B2C3D4
    PCAP_NANOSECONDS = 0xA1B23C4D
    PCAP_MODIFIED = 0xA1B2CD34  # with more in each record's head
    PCAP_HEADER = 24            # bytes
    PCAP_LONGEST = 262144       # bytes of a frame that a record's head may tell of
    SAMPLE = 4                  # records by which the length of their heads is found out
    LINKTYPE_ETHERNET = 1
    FCS_GIVEN = 0x04000000      # with the link type: the upper four bits are the FCS's length in 16-bit words

cdef enum:                      # pcapng
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
    MICROSECONDS = 6            # if_tsresol where none is given

_TEXTS = {
    trouble_t.OTHER_LINK: "packet {packet} has link type {value}; only Ethernet (1) is carried here",
    trouble_t.NO_FRAME_SIZE: "packet {packet} has {value} bytes; frames of {least} to {most} are carried"
                             " (capture with segmentation offload off)",
    trouble_t.TOO_EARLY: "packet {packet} is from before 1970; the NIC's times begin there",
    trouble_t.TOO_LATE: "packet {packet} is of the year 2262 or later; nanoseconds end there",
    trouble_t.BLOCK_SIZE: "damaged at offset {offset}: a pcapng block of {value} bytes",
    trouble_t.BLOCK_SHORT: "damaged at offset {offset}: a pcapng block of {value} bytes that needs {other}",
    trouble_t.BLOCK_LONG: "damaged at offset {offset}: a pcapng block of {value} bytes;"
                          " {longest} are the most",
    trouble_t.BLOCK_END: "damaged at offset {offset}: a pcapng block that begins with a length of {value}"
                         " bytes ends with one of {other}",
    trouble_t.SECTION_ORDER: "damaged at offset {offset}: a pcapng section of no known byte order",
    trouble_t.PCAP_VERSION: "pcap of version {value}.{other}; give one of version 2.3 or 2.4",
    trouble_t.PCAPNG_VERSION: "a pcapng section of version {value}.{other} at offset {offset};"
                              " give one of version 1.0 or 1.2",
    trouble_t.NO_INTERFACE: "packet {packet} is of interface {value}, and its section has described {other}",
    trouble_t.OPTION_SIZE: "damaged at offset {offset}: an option of {value} bytes where {other} are left",
}
_PARTS = {
    part_t.FILE_HEADER: "the file header",
    part_t.PACKET_HEADER: "the header of packet {packet}",
    part_t.PACKET: "packet {packet}",
    part_t.BLOCK: "the block before packet {packet}",
    part_t.END_OF_BLOCK: "the block before packet {packet}",
}


# --- both formats -----------------------------------------------------------------------------------------

cdef int64_t _packet(walk_t *walk, interface_t *interface, const uint8_t *data, uint64_t len,
                     uint64_t wire_len, uint64_t timestamp_ns, bint dated, uint32_t fcs) noexcept nogil:
    """Keeps a packet, without its frame check sequence. Returns 0, or -1."""
    cdef int64_t *latest = &interface.latest if dated else NULL
    wire_len = max(wire_len, len)
    if fcs == FCS and wire_len >= FCS:      # no other length is Ethernet's
        wire_len -= FCS
        len = min(len, wire_len)
    if interface.linktype != LINKTYPE_ETHERNET:
        return refuse(walk, OTHER_LINK, interface.linktype)
    if not Limits.MIN_FRAME <= len <= Limits.MAX_FRAME:
        return refuse(walk, NO_FRAME_SIZE, len)
    if wire_len > Limits.MAX_FRAME:
        return refuse(walk, NO_FRAME_SIZE, wire_len)
    if store_add(walk.store, data, <uint32_t>len, <uint32_t>wire_len, timestamp_ns, latest):
        return refuse(walk, NO_MEMORY)
    walk.packet += 1
    return 0


cdef interface_t *_new_interface(walk_t *walk) noexcept nogil:
    """One more interface of this section. NULL: no memory."""
    cdef uint32_t room = 2 * walk.room if walk.room else 4
    cdef interface_t *interface = walk.interface
    if walk.interfaces == walk.room:
        interface = <interface_t *>realloc(interface, room * sizeof(interface_t))
        if interface == NULL:
            refuse(walk, NO_MEMORY)
            return NULL
        walk.interface, walk.room = interface, room
    interface = &interface[walk.interfaces]
    memset(interface, 0, sizeof(interface_t))
    interface.resolution = MICROSECONDS
    interface.latest = -DUE_MAX
    walk.interfaces += 1
    return interface


cdef int64_t _file_header(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    """Finds out the format. Returns bytes consumed, 0: more are needed, -1: it is no capture."""
    cdef uint32_t magic, link
    cdef interface_t *interface
    if left < 4:
        return more(walk, FILE_HEADER, 4)
    walk.swapped = False
    magic = get32(walk, at)
    if magic == SECTION:
        walk.pcapng = True
        return _block(walk, at, left)
    walk.swapped = magic not in (PCAP_MICROSECONDS, PCAP_NANOSECONDS, PCAP_MODIFIED)
    magic = get32(walk, at)
    if magic not in (PCAP_MICROSECONDS, PCAP_NANOSECONDS, PCAP_MODIFIED):
        return refuse(walk, NO_CAPTURE)
    if left < PCAP_HEADER:
        return more(walk, FILE_HEADER, PCAP_HEADER)
    if get16(walk, at + 4) != 2 or get16(walk, at + 6) < 3:
        return refuse(walk, PCAP_VERSION, get16(walk, at + 4), get16(walk, at + 6))
    interface = _new_interface(walk)
    if interface == NULL:
        return -1
    link = get32(walk, at + 20)
    interface.linktype = link & 0xFFFF
    interface.fcs = 2 * (link >> 28) if link & FCS_GIVEN else 0
    walk.pcap = True
    walk.lengths_swapped = get16(walk, at + 6) == 3
    walk.fraction = 1 if magic == PCAP_NANOSECONDS else 1000
    walk.record = 16 if magic == PCAP_NANOSECONDS else 0
    walk.modified = magic == PCAP_MODIFIED
    return PCAP_HEADER


# --- pcap -------------------------------------------------------------------------------------------------

cdef bint _possible(walk_t *walk, const uint8_t *at) noexcept nogil:
    """Whether a record can begin here."""
    cdef uint32_t len = get32(walk, at + 8), wire_len = get32(walk, at + 12)
    return get32(walk, at + 4) < 1000000 and len <= PCAP_LONGEST and wire_len <= PCAP_LONGEST and len > 0 \
        and (len <= wire_len or walk.lengths_swapped)


cdef int64_t _records(walk_t *walk, const uint8_t *at, size_t left, uint32_t head,
                      bint usual) noexcept nogil:
    """Whether records with heads of this length follow here. Returns 1, 0, or -1: it can't be told yet."""
    cdef uint64_t begin = 0
    cdef int _
    for _ in range(SAMPLE):
        if walk.last and begin == left and begin > 0:
            break
        if begin + 16 > left:               # a file that is cut short is one of the usual kind
            return -1 if not walk.last else usual
        if not _possible(walk, at + begin):
            return 0
        begin += head + get32(walk, at + begin + 8)
    return 1


cdef int64_t _record_header(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    """Finds out the length of a record's head: with which one do more records, or the end, follow?

    Modified pcap has 24 bytes, or 28 as SuSE 6.3 wrote it; with the usual magic there are 24 of Red Hat 6.1
    and 20 of Nokia, too. Returns 1, or 0: more bytes are needed.
    """
    cdef uint32_t sizes[3]
    cdef int64_t fits
    cdef int i
    sizes[0], sizes[1], sizes[2] = 16, 24, 20
    if walk.modified:
        sizes[0], sizes[1], sizes[2] = 24, 28, 24
    for i in range(3):
        fits = _records(walk, at, left, sizes[i], i == 0)
        if fits < 0:
            return more(walk, PACKET_HEADER, 16)
        if fits:
            walk.record = sizes[i]
            return 1
    walk.record = sizes[0]
    return 1


cdef int64_t _record(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
    cdef uint64_t len, wire_len
    cdef int64_t known
    if walk.record == 0:
        known = _record_header(walk, at, left)
        if known <= 0:
            return known
    if left < walk.record:
        return more(walk, PACKET_HEADER, walk.record)
    len, wire_len = get32(walk, at + 8), get32(walk, at + 12)
    if walk.lengths_swapped and len > wire_len:
        len, wire_len = wire_len, len
    if len > PCAP_LONGEST:
        return refuse(walk, NO_FRAME_SIZE, len)
    if left < walk.record + len:
        return more(walk, PACKET, len)
    if _packet(walk, walk.interface, at + walk.record, len, wire_len,
               get32(walk, at) * <uint64_t>1000000000 + get32(walk, at + 4) * <uint64_t>walk.fraction,
               True, walk.interface.fcs):
        return -1
    return walk.record + len


# --- pcapng -----------------------------------------------------------------------------------------------

cdef int64_t _section(walk_t *walk, const uint8_t *at, uint32_t total) noexcept nogil:
    if total < 28:
        return refuse(walk, BLOCK_SHORT, total, 28)
    if get16(walk, at + 12) != 1 or get16(walk, at + 14) not in (0, 2):
        return refuse(walk, PCAPNG_VERSION, get16(walk, at + 12), get16(walk, at + 14))
    walk.interfaces = 0                     # each section has its own
    return 0


cdef int64_t _interface(walk_t *walk, const uint8_t *at, uint32_t total) noexcept nogil:
    """An Interface Description Block. Of an option given twice the first is taken, as tshark does."""
    cdef options_t options
    cdef uint32_t code, len, seen = 0
    cdef const uint8_t *value
    cdef interface_t *interface
    cdef int64_t found
    if total < 20:
        return refuse(walk, BLOCK_SHORT, total, 20)
    interface = _new_interface(walk)
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


cdef int64_t _flags_fcs(walk_t *walk, const uint8_t *at, size_t left, uint32_t *fcs) noexcept nogil:
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


cdef int64_t _block_packet(walk_t *walk, const uint8_t *at, uint32_t total, bint old) noexcept nogil:
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
    if _flags_fcs(walk, at + 28 + padded, total - 32 - padded, &fcs):
        return -1
    if nanoseconds(walk, interface, <uint64_t>get32(walk, at + 12) << 32 | get32(walk, at + 16), &ns):
        return -1
    return _packet(walk, interface, at + 28, len, get32(walk, at + 24), ns, True, fcs)


cdef int64_t _block_simple(walk_t *walk, const uint8_t *at, uint32_t total) noexcept nogil:
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
    return _packet(walk, walk.interface, at + 12, len, wire_len, 0, False, walk.interface[0].fcs)


cdef uint32_t _least(uint32_t kind) noexcept nogil:
    """Bytes that a block of this type has at least."""
    if kind == STATISTICS:
        return 24
    if kind == JOURNAL:
        return 36
    if kind == SECRETS:
        return 20
    return 16 if kind in (NAMES, CUSTOM, CUSTOM_NOT_COPIED) else 12


cdef int64_t _block(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
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
        if total < _least(kind):
            return refuse(walk, BLOCK_SHORT, total, _least(kind))
        walk.skip, walk.total = total - 12, total
        return 8
    if total > LONGEST_BLOCK:
        return refuse(walk, BLOCK_LONG, total)
    if left < total:
        return more(walk, PACKET if packet else BLOCK, total)
    if get32(walk, at + total - 4) != total:
        return refuse(walk, BLOCK_END, total, get32(walk, at + total - 4))
    if kind == SECTION:
        failed = _section(walk, at, total)
    elif kind == INTERFACE:
        failed = _interface(walk, at, total)
    elif kind == SIMPLE_PACKET:
        failed = _block_simple(walk, at, total)
    else:
        failed = _block_packet(walk, at, total, kind == OLD_PACKET)
    return -1 if failed else total


cdef int64_t _rest_of_block(walk_t *walk, const uint8_t *at, size_t left) noexcept nogil:
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


cdef int64_t walk_on(walk_t *walk, const uint8_t *at, size_t size) noexcept nogil:
    """Reads what is there whole. Returns bytes consumed, -1: see `trouble`."""
    cdef size_t done = 0
    cdef int64_t step = 1
    while done < size and step > 0:
        if walk.total:
            step = _rest_of_block(walk, at + done, size - done)
        elif walk.pcapng:
            step = _block(walk, at + done, size - done)
        elif walk.pcap:
            step = _record(walk, at + done, size - done)
        else:
            step = _file_header(walk, at + done, size - done)
        if step < 0:
            return -1
        done += step
        walk.offset += step
    return <int64_t>done


cdef class CaptureWalk:
    """Reads one capture, given in pieces, into `frames`."""

    cdef walk_t c
    cdef readonly CapturedFrames frames

    def __cinit__(self):
        self.frames = CapturedFrames()
        self.c.store = &self.frames.c
        self.c.packet = 1

    def __dealloc__(self):
        free(self.c.interface)

    def feed(self, piece, *, last=False):
        """Reads what is whole in a piece of the file; returns its bytes. The next piece begins with the rest.

        last: nothing follows. ConfigError: the capture is damaged, cut short, or of no use here; the message
        says where. ResourceError: no memory.
        """
        cdef Py_buffer view
        cdef int64_t done
        self.frames.check_open()
        PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
        try:
            self.c.last = last
            with nogil:
                done = walk_on(&self.c, <const uint8_t *>view.buf, view.len)
            if done < 0:
                raise self._trouble(bytes(piece[:4]))
            if last and (done < view.len or self.c.total):
                raise self._cut_short(view.len - done)
        finally:
            PyBuffer_Release(&view)
        return done

    def _trouble(self, bytes head):
        cdef walk_t *walk = &self.c
        if walk.trouble == NO_MEMORY:
            return ResourceError(f"no memory for more than {len(self.frames)} packets of this capture")
        if walk.trouble == NO_CAPTURE:
            return ConfigError(f"not a capture file: it starts with {head.hex()}; give a pcap or pcapng file")
        return ConfigError(_TEXTS[walk.trouble].format(
            packet=walk.packet, offset=walk.offset, value=walk.value, other=walk.other,
            least=<int>Limits.MIN_FRAME, most=<int>Limits.MAX_FRAME, longest=<int>LONGEST_BLOCK,
        ))

    def _cut_short(self, left):
        cdef walk_t *walk = &self.c
        at, need, part = walk.offset, walk.need, walk.part
        if walk.total:                      # a block whose head was taken already
            need, part = walk.skip + 4, part_t.END_OF_BLOCK
        elif walk.pcap and part == PACKET:  # the frame alone
            at, left = at + walk.record, left - walk.record
        what = _PARTS[part].format(packet=walk.packet)
        return ConfigError(f"cut short in {what} at offset {at}: {need - left} of {need} bytes missing")
