"""Reads captures as other programs write them: pcap, modified pcap and pcapng, in pieces of any size.

What is refused, and what is read, is as tshark does it; docs/wires.md lists the differences.
"""
# build: explored

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free

from cdna.abi cimport Limits
from cdna.nic.capture_pcap cimport pcap_record
from cdna.nic.capture_pcapng cimport SECTION, pcapng_block, rest_of_block
from cdna.nic.captured cimport CapturedFrames

from cdna.errors import ConfigError, ResourceError

cdef enum:
    PCAP_MICROSECONDS = 0xA1B2C3D4
    PCAP_NANOSECONDS = 0xA1B23C4D
    PCAP_MODIFIED = 0xA1B2CD34  # with more in each record's head
    PCAP_HEADER = 24            # bytes
    FCS_GIVEN = 0x04000000      # with the link type: the upper four bits are the FCS's length in 16-bit words

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
        return pcapng_block(walk, at, left)
    walk.swapped = magic not in (PCAP_MICROSECONDS, PCAP_NANOSECONDS, PCAP_MODIFIED)
    magic = get32(walk, at)
    if magic not in (PCAP_MICROSECONDS, PCAP_NANOSECONDS, PCAP_MODIFIED):
        return refuse(walk, NO_CAPTURE)
    if left < PCAP_HEADER:
        return more(walk, FILE_HEADER, PCAP_HEADER)
    if get16(walk, at + 4) != 2 or get16(walk, at + 6) < 3:
        return refuse(walk, PCAP_VERSION, get16(walk, at + 4), get16(walk, at + 6))
    interface = new_interface(walk)
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


cdef int64_t walk_on(walk_t *walk, const uint8_t *at, size_t size) noexcept nogil:
    """Reads what is there whole. Returns bytes consumed, -1: see `trouble`."""
    cdef size_t done = 0
    cdef int64_t step = 1
    while done < size and step > 0:
        if walk.total:
            step = rest_of_block(walk, at + done, size - done)
        elif walk.pcapng:
            step = pcapng_block(walk, at + done, size - done)
        elif walk.pcap:
            step = pcap_record(walk, at + done, size - done)
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
