"""AF_PACKET sockets with mapped rings, the control part (packet(7), the kernel's packet_mmap.rst)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import struct

from cdna.errors import ResourceError
from cdna.extend.permits import Call, one_of, option
from cdna.nic.tap import OFFLOADS, SIOCGIFINDEX, SIOCGIFMTU, check_device_name

SOL_PACKET = 263  # linux/socket.h; the options below: linux/if_packet.h
PACKET_ADD_MEMBERSHIP = 1
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_TX_RING = 13
PACKET_LOSS = 14
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
PACKET_MR_PROMISC = 1
TPACKET_V2 = 1
ETH_P_ALL = 3  # linux/if_ether.h
ARPHRD_ETHER = 1  # linux/if_arp.h
SO_SNDBUFFORCE = 32  # asm-generic/socket.h
SIOCGIFNAME, SIOCGIFFLAGS, SIOCGIFHWADDR = 0x8910, 0x8913, 0x8927  # linux/sockios.h
IFF_UP, IFF_RUNNING = 0x1, 0x40  # linux/if.h
# What a server still does with its socket in its sandbox.
CALLS = (
    Call(
        "ioctl",
        (
            one_of(
                1,
                ("SIOCGIFNAME", SIOCGIFNAME),
                ("SIOCGIFFLAGS", SIOCGIFFLAGS),
                ("SIOCGIFHWADDR", SIOCGIFHWADDR),
                ("SIOCGIFINDEX", SIOCGIFINDEX),
                ("SIOCGIFMTU", SIOCGIFMTU),
            ),
        ),
    ),
    Call("getsockopt", option(SOL_PACKET, "PACKET_STATISTICS", PACKET_STATISTICS)),
    Call("setsockopt", option(SOL_PACKET, "PACKET_ADD_MEMBERSHIP", PACKET_ADD_MEMBERSHIP)),
)

BLOCK = 1 << 20  # bytes of memory that the kernel allocates at a time; a frame does not cross it
RX_FRAME = 65728  # bytes: headers, and a frame of MAX_TSO_FRAME; an odd number of cache lines
TX_FRAME = 9280  # bytes: headers, and a frame of MAX_FRAME and a tag; an odd number of cache lines
RX_BLOCKS = 32
TX_BLOCKS = 2
SEND_BUFFER = 8 << 20  # bytes on their way through the kernel: below that, it would refuse bursts


def kernel_takes() -> int:
    """What a packet socket sends with work left to do, a sum of `Takes`: the device or the stack does it.

    There is nothing to ask: UDP in segments came with Linux 6.2 (include/linux/virtio_net.h).
    """
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    knows_uso = release is not None and tuple(map(int, release.groups())) >= (6, 2)
    return OFFLOADS[0] if knows_uso else OFFLOADS[1]


class PacketSocket:
    """A raw socket on the interface `name` with rings of frames, TPACKET_V2, large frames kept whole.

    A socket with a transmit ring sends from that alone, so there is another, `sender`, for what the ring's
    slots do not hold. It receives nothing.

    rx_slots, tx_slots: offsets of the frames in the mapping, in the order in which they are used; size: bytes
    to be mapped, from offset 0. Raises ConfigError for a name that cannot be, ResourceError where there is no
    such interface, no right to it, or no memory.
    """

    def __init__(self, name: str) -> None:
        check_device_name(name)
        self.name = name
        self.drops = 0  # frames that found the receive ring full
        with contextlib.ExitStack() as undo:
            self._socket = self._open()
            undo.callback(self._socket.close)
            self._sender = self._open()
            undo.callback(self._sender.close)
            self._check_device()
            self._set_options()
            rx_blocks = self._make_ring(PACKET_RX_RING, RX_BLOCKS, RX_FRAME)
            tx_blocks = self._make_ring(PACKET_TX_RING, TX_BLOCKS, TX_FRAME)
            self.bind()
            undo.pop_all()
        self.size = (rx_blocks + tx_blocks) * BLOCK
        self.rx_slots = _slots(0, rx_blocks, RX_FRAME)
        self.tx_slots = _slots(rx_blocks * BLOCK, tx_blocks, TX_FRAME)

    def _open(self) -> socket.socket:
        try:
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError:
            raise ResourceError(
                f"packet {self.name}: no permission (CAP_NET_RAW): run as root or in a user namespace"
            ) from None
        except OSError as error:
            raise ResourceError(
                f"packet {self.name}: {error.strerror}; AF_PACKET sockets are needed"
            ) from None

    def _ioctl(self, request: int, name: str) -> bytes:
        return fcntl.ioctl(self._socket, request, struct.pack("16s24x", os.fsencode(name)))[16:]

    def _check_device(self) -> None:
        try:
            (kind,) = struct.unpack_from("H", self._ioctl(SIOCGIFHWADDR, self.name))
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise ResourceError(
                    f"packet {self.name}: there is no such interface; ip link lists those there are"
                ) from None
            raise ResourceError(f"packet {self.name}: {error.strerror}") from None
        if kind != ARPHRD_ETHER:
            raise ResourceError(f"packet {self.name}: it is no Ethernet interface; give one that is")

    def _set_options(self) -> None:
        try:
            self._set(PACKET_VERSION, TPACKET_V2)
            for opened in (self._socket, self._sender):
                opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            self._set(PACKET_IGNORE_OUTGOING, 1)
            self._set(PACKET_LOSS, 1)  # a frame that the device can't send does not stop the ring
        except OSError as error:
            raise ResourceError(
                f"packet {self.name}: {error.strerror}; Linux 4.20 or later is needed"
            ) from None
        for opened in (self._socket, self._sender):
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                opened.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)

    def _set(self, option: int, value: int) -> None:
        self._socket.setsockopt(SOL_PACKET, option, value)

    def _make_ring(self, option: int, blocks: int, frame: int) -> int:
        """Makes a ring of at most so many blocks; fewer where memory is short. Returns how many."""
        while True:
            request = struct.pack("4I", BLOCK, blocks, frame, blocks * (BLOCK // frame))
            try:
                self._socket.setsockopt(SOL_PACKET, option, request)
            except OSError as error:
                if error.errno != errno.ENOMEM or blocks == 1:
                    raise ResourceError(
                        f"packet {self.name}: no ring of {blocks} MiB: {error.strerror}"
                    ) from None
                blocks //= 2
            else:
                return blocks

    def bind(self) -> None:
        """Begins to receive from the interface of this name. Raises ResourceError if there is none."""
        try:
            self._sender.bind((self.name, 0))
            self._socket.bind((self.name, ETH_P_ALL))
            (index,) = struct.unpack_from("i", self._ioctl(SIOCGIFINDEX, self.name))
            membership = struct.pack("iHH8x", index, PACKET_MR_PROMISC, 0)
            self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        except OSError as error:
            raise ResourceError(f"packet {self.name}: {error.strerror}") from None

    def bound_name(self) -> str:
        """The name that the interface has now; "" where it is gone."""
        return str(self._socket.getsockname()[0])

    def find_trouble(self) -> str | None:
        """What is wrong with the interface, a few words; None: nothing. Another one of the name will do."""
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # or it would be always readable
        try:
            if not self.bound_name():
                self._check_device()
                self.bind()
            (flags,) = struct.unpack_from("H", self._ioctl(SIOCGIFFLAGS, self.bound_name()))
        except (OSError, ResourceError):
            return "the interface is gone"
        if not flags & IFF_UP:
            return "the interface is down"
        return None if flags & IFF_RUNNING else "the interface has no carrier"

    def mtu(self) -> int:
        try:
            return int(struct.unpack_from("i", self._ioctl(SIOCGIFMTU, self.bound_name()))[0])
        except OSError:
            return 0

    def count_drops(self) -> int:
        """Frames that the kernel had no room for in the receive ring, since the socket was made."""
        with contextlib.suppress(OSError):  # the kernel starts again from 0 each time
            self.drops += struct.unpack("2I", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        return self.drops

    def fileno(self) -> int:
        return self._socket.fileno()

    def sender(self) -> int:
        return self._sender.fileno()

    def close(self) -> None:
        self._socket.close()
        self._sender.close()


def _slots(start: int, blocks: int, frame: int) -> list[int]:
    return [start + block * BLOCK + i * frame for block in range(blocks) for i in range(BLOCK // frame)]
