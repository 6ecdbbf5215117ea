"""Tap devices: opened through /dev/net/tun, brought up over netlink."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import Any, NoReturn

from cdna.abi import Limits, Takes
from cdna.errors import ConfigError, ResourceError, whole
from cdna.extend.permits import ROUTE_NETLINK, Call, one_of, option

TUNSETIFF = 0x400454CA  # linux/if_tun.h
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNGETIFF = 0x800454D2
TUNSETCARRIER = 0x400454E2
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x4000, 0x0100
# What TUNSETOFFLOAD takes, best first; TUN_F_* are the bits of `Takes`. A kernel refuses what it does not
# know as a whole: USO before Linux 6.2, UFO before 4.15.
TCP_OFFLOADS = Takes.TAKES_CSUM | Takes.TAKES_TSO4 | Takes.TAKES_TSO6 | Takes.TAKES_ECN
OFFLOADS = (
    TCP_OFFLOADS | Takes.TAKES_UFO | Takes.TAKES_USO4 | Takes.TAKES_USO6,
    TCP_OFFLOADS | Takes.TAKES_UFO,
    TCP_OFFLOADS,
)
SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_SSET = 0x2  # linux/ethtool.h
ETHTOOL_CMD = struct.Struct("=3IH6B2IH2B3I")  # struct ethtool_cmd
SPEED, DUPLEX_FULL = 10000, 1  # Mbit/s: what a veth pair says of itself
MAX_TAP_QUEUES = 256  # drivers/net/tun.c
IFF_UP = 0x1  # linux/if.h
IFNAMSIZ = 16
SIOCGIFINDEX, SIOCGIFMTU = 0x8933, 0x8921  # linux/sockios.h
# What a server still does with taps in its sandbox, netlink for their addresses among it.
CALLS = (
    Call(
        "ioctl",
        (
            one_of(
                1,
                ("TUNSETIFF", TUNSETIFF),
                ("TUNSETOFFLOAD", TUNSETOFFLOAD),
                ("TUNSETVNETHDRSZ", TUNSETVNETHDRSZ),
                ("TUNSETCARRIER", TUNSETCARRIER),
                ("TUNGETIFF", TUNGETIFF),
                ("SIOCGIFINDEX", SIOCGIFINDEX),
            ),
        ),
    ),
    Call("socket", ROUTE_NETLINK),
    Call("setsockopt", option(socket.SOL_SOCKET, "SO_RCVBUF", socket.SO_RCVBUF)),
)

NEEDS = "CAP_NET_ADMIN is needed, or a tap made for you: sudo ip tuntap add dev {} mode tap{} user $USER"


def check_device_name(name: str, what: str = "interface") -> None:
    """Raises ConfigError unless Linux takes this for an interface."""
    if not 1 <= len(os.fsencode(name)) < IFNAMSIZ:
        raise ConfigError(f"{what} name {name!r}: give 1 to {IFNAMSIZ - 1} bytes")
    if not name.isprintable():  # nor what is no UTF-8, which Linux takes and netlink's users cannot name
        raise ConfigError(f"{what} name {name!r}: give printable characters")
    if name in (".", "..") or any(c in "/:%\0" or c.isspace() for c in name):
        raise ConfigError(f"{what} name {name!r}: no white space, '/', ':' or '%', and neither '.' nor '..'")


def check_tap_name(name: str) -> None:
    """Raises ConfigError unless Linux takes this for a tap."""
    check_device_name(name, "tap")


def open_tap(name: str, *, queues: int = 1, vnet_header: bool = False, up: bool = True) -> list[int]:
    """Nonblocking descriptors, one a queue, of the tap `name`, made where it does not exist.

    vnet_header: frames start with a `vnet_header_t` (12 bytes) and may lack a checksum or be large, both ways
    (`set_offloads`). up: the device is brought up.

    Raises ConfigError for a name or a number that cannot be, and ResourceError where the device cannot be
    had. Then nothing is left behind.
    """
    check_tap_name(name)
    queues = whole("queues of a tap", queues, 1, MAX_TAP_QUEUES)
    fds: list[int] = []
    with contextlib.ExitStack() as undo:
        for _ in range(queues):
            try:
                fds.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            except OSError as error:
                raise ResourceError(
                    f"/dev/net/tun: {error.strerror}; tap devices need it (modprobe tun)"
                ) from None
            undo.callback(os.close, fds[-1])
            _attach(fds[-1], name, queues > 1, vnet_header)
        if queues > 1:
            _check_alone(fds[0], name, queues, vnet_header)
        if up:
            _bring_up(name)
        undo.pop_all()
    return fds


def _attach(fd: int, name: str, multi: bool, vnet_header: bool) -> None:
    flags = IFF_TAP | IFF_NO_PI
    flags |= IFF_MULTI_QUEUE if multi else 0
    flags |= IFF_VNET_HDR if vnet_header else 0
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", os.fsencode(name), flags))
        if vnet_header:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", Limits.VNET_HEADER))
        set_offloads(fd, vnet_header)  # a tap that persists remembers them
    except OSError as error:
        _explain(name, multi, error)


def is_attached(fd: int) -> bool:
    """Whether the tap that `fd` was opened for is there still; in whichever namespace, by whichever name."""
    try:
        fcntl.ioctl(fd, TUNGETIFF, bytes(40))
    except OSError:  # EBADFD
        return False
    return True


def set_offloads(fd: int, on: bool) -> int:
    """Lets the kernel give frames with work left to do to a tap, or not. Returns which, a sum of `Takes`.

    The kernel takes the same from whoever writes to the tap.
    """
    for offloads in OFFLOADS if on else (0,):
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, int(offloads))
        except OSError as error:
            if error.errno != errno.EINVAL or offloads in (0, OFFLOADS[-1]):
                raise
        else:
            return int(offloads)
    raise AssertionError


def _check_alone(fd: int, name: str, queues: int, vnet_header: bool) -> None:
    """Raises ResourceError where another program has queues of this tap: it got frames that are ours.

    While it has, the kernel does not even look at what we say of headers.
    """
    (flags,) = struct.unpack_from("H", fcntl.ioctl(fd, TUNGETIFF, bytes(40)), IFNAMSIZ)
    info = _tap_info(name)
    taken = info is not None and (info.get_attr("IFLA_TUN_NUM_QUEUES") or 0) > queues
    if taken or bool(flags & IFF_VNET_HDR) != vnet_header:
        raise ResourceError(f"tap {name}: another program holds queues of it; stop it or give another name")


def _explain(name: str, multi: bool, error: OSError) -> NoReturn:
    """Raises the ResourceError for a tap that could not be had."""
    if error.errno in (errno.EPERM, errno.EACCES):
        needs = NEEDS.format(name, " multi_queue" if multi else "")
        raise ResourceError(f"tap {name}: no permission: {needs}") from None
    if error.errno == errno.EBUSY:
        raise ResourceError(f"tap {name}: another program holds it; stop it or give another name") from None
    if error.errno == errno.E2BIG:
        raise ResourceError(f"tap {name}: all its queues are taken; give fewer queues") from None
    if error.errno == errno.EINVAL:
        info = _tap_info(name)
        if info is None:
            raise ResourceError(f"{name} exists and is no tap; give another name") from None
        if bool(info.get_attr("IFLA_TUN_MULTI_QUEUE")) != multi:
            raise ResourceError(
                f"tap {name}: it was made with a single queue; give queues=1, or another name"
                if multi
                else f"tap {name}: it was made with several queues; give queues=2 or more, or another name"
            ) from None
    raise ResourceError(f"tap {name}: {error.strerror}") from None


def _tap_info(name: str) -> Any:
    """What netlink says of the tap `name` beyond what it says of any link; None: there is none."""
    from pyroute2 import IPRoute, NetlinkError  # takes a while to import

    with IPRoute() as netlink:
        try:
            info = netlink.get_links(ifname=name)[0].get_attr("IFLA_LINKINFO")
        except (NetlinkError, IndexError):
            return None
    if info is None or info.get_attr("IFLA_INFO_KIND") != "tun":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    return data if data is not None and data.get_attr("IFLA_TUN_TYPE") == IFF_TAP else None


def is_tap(name: str) -> bool:
    """Whether there is a tap of this name."""
    return device_exists(name) and _tap_info(name) is not None


def device_exists(name: str) -> bool:
    """Whether there is an interface of this name, of whatever kind."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def mtu_of(name: str) -> int | None:
    """The MTU of the interface `name` of this thread's network namespace; None: there is none."""
    request = struct.pack("16s24x", os.fsencode(name))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        return int(struct.unpack_from("i", fcntl.ioctl(opened, SIOCGIFMTU, request), IFNAMSIZ)[0])
    return None


def limit_frames(name: str, length: int) -> None:
    """Asks the kernel to send frames of at most `length` bytes, tag included, where it may be asked."""
    from pyroute2 import IPRoute, NetlinkError  # takes a while to import

    # The kernel cuts what is as long as the limit (gso_features_check), and tags what it has cut.
    with contextlib.suppress(NetlinkError, OSError, IndexError), IPRoute() as netlink:
        index = netlink.get_links(ifname=name)[0]["index"]
        netlink.link("set", index=index, gso_max_size=length + 1 - 4)


def set_speed(name: str) -> None:
    """Has a tap say SPEED: programs that choose by speed believe the 10 Mbit/s of a new one.

    Before Linux 4.20 it says 10 Mbit/s all the same.
    """
    settings = ETHTOOL_CMD.pack(ETHTOOL_SSET, 0, 0, SPEED, DUPLEX_FULL, *[0] * 13)
    command = ctypes.create_string_buffer(settings)
    request = struct.pack("16sP16x", os.fsencode(name), ctypes.addressof(command))
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, request)


def set_carrier(fd: int, up: bool) -> None:
    """Shows the host's end of a tap the link, where the kernel can (Linux 5.0)."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, TUNSETCARRIER, struct.pack("i", up))


def _bring_up(name: str) -> None:
    from pyroute2 import IPRoute, NetlinkError  # takes a while to import

    with IPRoute() as netlink:
        link = netlink.get_links(ifname=name)[0]
        if link["flags"] & IFF_UP:
            return
        try:
            netlink.link("set", index=link["index"], state="up")
        except NetlinkError as error:
            raise ResourceError(
                f"tap {name}: cannot bring it up: {os.strerror(error.code)}: sudo ip link set {name} up"
            ) from None
