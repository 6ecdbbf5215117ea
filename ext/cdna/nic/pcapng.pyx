"""A pcapng writer: sections, interfaces with names and addresses, packets with nanoseconds, statistics.

It writes into a buffer, and whoever uses it writes the buffer to a file: a million frames a second need no
Python object a frame. (scapy's writer makes several, and knows neither nanoseconds nor statistics.)
"""

import platform
import struct

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cdna.errors import ConfigError

cdef enum:
    LONGEST_BLOCK = 131072      # bytes; one with the longest frame and the longest comment

cdef enum:                      # options, by the draft's names
    OPT_ENDOFOPT = 0
    OPT_COMMENT = 1
    SHB_HARDWARE = 2
    SHB_OS = 3
    SHB_USERAPPL = 4
    IF_NAME = 2
    IF_DESCRIPTION = 3
    IF_MACADDR = 6
    IF_TSRESOL = 9
    EPB_FLAGS = 2
    ISB_STARTTIME = 2
    ISB_ENDTIME = 3
    ISB_IFRECV = 4
    ISB_IFDROP = 5

cdef enum:
    LINKTYPE_ETHERNET = 1
    BYTE_ORDER = 0x1A2B3C4D     # little-endian, as it is written here

_NANOSECONDS = b"\x09"          # if_tsresol: 10 ** -9 s
_UNKNOWN_LENGTH = 2**64 - 1     # of the section: it goes on


def _options(options):
    """Options from (code, bytes) pairs, padded and ended; nothing where there are none."""
    options = [(code, value) for code, value in options if value]
    if not options:
        return b""
    return b"".join(struct.pack("<HH", code, len(value)) + value + bytes(-len(value) & 3)
                    for code, value in [*options, (OPT_ENDOFOPT, b"")])


def _text(text):
    """UTF-8 of at most 1024 bytes, whole characters."""
    return (text or "").encode("utf-8", "replace")[:1024].decode("utf-8", "ignore").encode()


def packet_options(*, flags=None, comment=None):
    """The options of a packet: epb_flags and a comment, as `add_packet` takes them."""
    return _options([(EPB_FLAGS, b"" if flags is None else struct.pack("<I", flags)),
                     (OPT_COMMENT, _text(comment))])


def whole_blocks(data, end):
    """Of blocks that lie one behind the other, those that end at `end` or before: (bytes, packets)."""
    at = packets = 0
    while end - at >= 12:
        kind, total = struct.unpack_from("<II", data, at)
        if total > end - at:
            break
        at += total
        packets += kind == PCAPNG_EPB
    return at, packets


def _stamp(ns):
    return struct.pack("<II", ns >> 32, ns & 0xFFFFFFFF)


cdef class PcapngWriter:
    """Writes blocks into a buffer of `size` bytes, beginning with a section's header.

    Give `view()` to a file, then `clear()`. What returns False found no room: do so, and call it again.
    """

    def __init__(self, size=1 << 20, *, application="cdna"):
        if self.c.buffer != NULL:
            raise TypeError("a PcapngWriter is made once")
        self.c.size = max(size, <size_t>LONGEST_BLOCK)
        self.c.buffer = <uint8_t *>malloc(self.c.size)
        if self.c.buffer == NULL:
            raise MemoryError
        section = struct.pack("<IHHQ", <uint32_t>BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
        self._append(PCAPNG_SHB, section + _options([
            (SHB_HARDWARE, _text(platform.machine())),
            (SHB_OS, _text(f"{platform.system()} {platform.release()}")),
            (SHB_USERAPPL, _text(application))]))

    def __dealloc__(self):
        free(self.c.buffer)

    def _append(self, kind, bytes body) -> bool:
        cdef uint32_t total = <uint32_t>(12 + PyBytes_GET_SIZE(body))
        cdef uint8_t *at = self.c.buffer + self.c.used
        self._check()
        if total > self.c.size - self.c.used:
            return False
        at = put_u32(at, kind)
        at = put_u32(at, total)
        memcpy(at, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
        put_u32(at + PyBytes_GET_SIZE(body), total)
        self.c.used += total
        return True

    def _check(self):
        if self._exports:
            raise BufferError("the buffer is being written to a file: release its view first")

    def add_interface(self, name=None, *, description=None, mac=b"", snaplen=0):
        """Describes an Ethernet interface; returns its number, or -1 without room."""
        body = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snaplen) + _options([
            (IF_NAME, _text(name)), (IF_DESCRIPTION, _text(description)), (IF_MACADDR, mac),
            (IF_TSRESOL, _NANOSECONDS)])
        if not self._append(PCAPNG_IDB, body):
            return -1
        self.interfaces += 1
        return self.interfaces - 1

    def add_packet(self, uint32_t interface, uint64_t timestamp_ns, bytes frame, wire_length=None,
                   bytes options=b""):
        """A frame, with its length on the wire where it was cut; `options` are `packet_options`."""
        cdef uint32_t caplen = <uint32_t>PyBytes_GET_SIZE(frame)
        cdef uint32_t length = caplen if wire_length is None else wire_length
        self._check()
        if PyBytes_GET_SIZE(frame) + PyBytes_GET_SIZE(options) > LONGEST_BLOCK - 64:
            raise ConfigError(f"a frame of {len(frame)} bytes: a capture takes {<int>LONGEST_BLOCK >> 1}")
        return put_packet(&self.c, interface, timestamp_ns, <const uint8_t *>PyBytes_AS_STRING(frame), caplen,
                          length, <const uint8_t *>PyBytes_AS_STRING(options),
                          <uint32_t>PyBytes_GET_SIZE(options))

    def add_statistics(self, uint32_t interface, *, received, lost, start_ns, end_ns):
        """What became of an interface's frames; `received` counts those that were lost as well."""
        return self._append(PCAPNG_ISB, struct.pack("<I", interface) + _stamp(end_ns) + _options([
            (ISB_STARTTIME, _stamp(start_ns)), (ISB_ENDTIME, _stamp(end_ns)),
            (ISB_IFRECV, struct.pack("<Q", received)), (ISB_IFDROP, struct.pack("<Q", lost))]))

    @property
    def used(self):
        """Bytes in the buffer."""
        return self.c.used

    def view(self):
        """The blocks in the buffer, without a copy; release it before the next block is added."""
        return memoryview(self)

    def clear(self):
        """Forgets them, because they are in a file."""
        self._check()
        self.c.used = 0

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.c.buffer, <Py_ssize_t>self.c.used, 1, flags)
        self._exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self._exports -= 1
