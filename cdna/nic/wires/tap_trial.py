"""Whether this machine makes taps (`cdna.extend.trial`)."""

import fcntl
import os
import struct

from cdna.extend.trial import private_network, step

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8  # linux/if_tun.h
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
VNET_HEADER_BYTES = 12  # struct virtio_net_hdr_mrg_rxbuf


def make_tap(flags: int) -> int:
    with step("opening /dev/net/tun"):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    with step("making a tap"):
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"trial", IFF_TAP | IFF_NO_PI | flags))
    return fd


def tap() -> None:
    private_network()
    make_tap(0)


def tap_offloads() -> None:
    private_network()
    fd = make_tap(IFF_VNET_HDR | IFF_MULTI_QUEUE)
    with step("setting the virtio-net header"):
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
    with step("setting offloads"):
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
