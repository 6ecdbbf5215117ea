"""Loads: what the benchmark's flows are made of, laid out once in memory that forked processes share."""
# build: control unfuzzed

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.memory cimport SharedRegion

from pathlib import Path

from cdna.errors import ConfigError

# 7 of 64 bytes, 4 of 590, 1 of 1514, the small ones spread between the others
_IMIX = (64, 590, 64, 64, 590, 64, 590, 64, 64, 590, 64, 1514)
_SIZES = f"{<int>TRAFFIC_MIN_FRAME} to {<int>TRAFFIC_MAX_FRAME}"


cdef class Load:
    """A cycle of frame lengths, and of payload bytes where it came from a capture."""

    def __init__(self, lengths, payload=None, *, name="custom", verify=False):
        lengths = list(lengths)
        if not lengths:
            raise ConfigError("a load of no frames; give at least one length")
        for length in lengths:
            if not TRAFFIC_MIN_FRAME <= length <= TRAFFIC_MAX_FRAME:
                raise ConfigError(f"a frame of {length} bytes: give {_SIZES}")
        if payload is not None and len(payload) != len(lengths):
            raise ConfigError(f"payload of {len(payload)} frames for {len(lengths)} lengths")
        self.name = name
        self._allocate(len(lengths), sum(lengths) if payload is not None else 0)
        self._set_lengths(lengths)
        if payload is not None:
            self._set_payload(payload)
        self.c.verify = bool(verify)

    def _allocate(self, size_t n, size_t payload_bytes):
        cdef size_t lengths_at = (sizeof(load_t) + 63) & ~<size_t>63
        cdef size_t pointers_at = lengths_at + (n * sizeof(uint32_t) + 63 & ~<size_t>63)
        self._region = SharedRegion(pointers_at + n * sizeof(uint8_t *) + payload_bytes)
        self.c = <load_t *>self._region.base
        self.c.n = <uint32_t>n
        self.c.length = <uint32_t *>(self._region.base + lengths_at)
        if payload_bytes > 0:
            self.c.payload = <uint8_t **>(self._region.base + pointers_at)
            self.c.payload[0] = self._region.base + pointers_at + n * sizeof(uint8_t *)

    def _set_lengths(self, list lengths):
        cdef uint32_t i
        for i in range(self.c.n):
            self.c.length[i] = lengths[i]
            self.c.bytes += self.c.length[i]
            if self.c.length[i] > self.c.max_length:
                self.c.max_length = self.c.length[i]

    def _set_payload(self, payload):
        cdef uint32_t i, n
        cdef bytes data
        for i in range(self.c.n):
            if i > 0:
                self.c.payload[i] = self.c.payload[i - 1] + self.c.length[i - 1]
            data = bytes(payload[i])
            n = min(<uint32_t>len(data), self.c.length[i])
            memcpy(self.c.payload[i], PyBytes_AS_STRING(data), n)

    @classmethod
    def fixed(cls, size, *, verify=False):
        """Frames of `size` bytes, 60 to 9018."""
        if not TRAFFIC_MIN_FRAME <= size <= TRAFFIC_MAX_FRAME:
            raise ConfigError(f"a frame size of {size} bytes: give {_SIZES}")
        return cls([size], name=str(size), verify=verify)

    @classmethod
    def imix(cls, *, verify=False):
        """The Internet mix: of 12 frames 7 have 64 bytes, 4 have 590 and 1 has 1514."""
        return cls(_IMIX, name="imix", verify=verify)

    @classmethod
    def capture(cls, path, *, verify=False):
        """The frames of a pcap or pcapng file, in file order.

        Their lengths and bytes are the capture's, except that addresses, bytes 12..31 and the last eight are
        the benchmark's, that frames under 60 bytes are padded with zeros to 60, and that frames which the
        capture had cut get their length on the wire back, in zeros.
        """
        from cdna.nic.capture import read_capture   # scapy takes a while to import

        frames = read_capture(path)
        lengths = [max(frame.wire_length, TRAFFIC_MIN_FRAME) for frame in frames]
        return cls(lengths, [frame.data for frame in frames], name=str(path), verify=verify)

    @classmethod
    def parse(cls, text, *, verify=False):
        """A load by its name: a number of bytes, "imix" or the path of a capture."""
        if text.isascii() and text.isdigit():
            return cls.fixed(int(text), verify=verify)
        if text == "imix":
            return cls.imix(verify=verify)
        if not text or not Path(text).exists():
            raise ConfigError(
                f"{text!r} is neither a number of bytes ({_SIZES}), nor imix, nor the path of a capture file"
            )
        return cls.capture(text, verify=verify)

    @property
    def lengths(self):
        """Bytes of each frame of the cycle."""
        return [self.c.length[i] for i in range(self.c.n)]

    @property
    def max_length(self):
        """Bytes of the longest frame."""
        return self.c.max_length

    @property
    def mean_length(self):
        """Bytes of a frame, over the cycle."""
        return <double>self.c.bytes / self.c.n

    @property
    def verify(self):
        """Whether every byte is written and checked. Set it before the traffic starts."""
        return bool(self.c.verify)

    @verify.setter
    def verify(self, value):
        self.c.verify = bool(value)

    def write(self, uint32_t flow, uint64_t seq, bytes dst_mac=bytes(6), bytes src_mac=bytes(6)):
        """Frame number `seq` of a flow, from and to addresses of six bytes each."""
        cdef uint64_t dst = mac_word(dst_mac), src = mac_word(src_mac)
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, load_length(self.c, seq))
        memset(PyBytes_AS_STRING(frame), 0, len(frame))
        frame_write(<uint8_t *>PyBytes_AS_STRING(frame), self.c, flow, seq, dst, src)
        return frame

    def check(self, const uint8_t[::1] frame, uint32_t flow, uint64_t seq):
        """What is wrong with a frame that should be number `seq` of `flow`; FRAME_OK if nothing is."""
        if frame.shape[0] == 0:
            return FrameError.FRAME_LENGTH
        return FrameError(frame_check(&frame[0], <uint32_t>frame.shape[0], self.c, flow, seq))

    def __repr__(self):
        return f"<Load {self.name}: {self.c.n} frames of {self.mean_length:.0f} bytes on average>"


def mac_word(mac):
    """An address of six bytes as the data path has it: the low 48 bits of a little-endian number."""
    if not isinstance(mac, bytes) or len(mac) != 6:
        raise ConfigError(f"MAC address {mac!r}: give six bytes")
    return int.from_bytes(mac, "little")
