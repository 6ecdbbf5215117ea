"""Tap devices: opened through /dev/net/tun, brought up over netlink."""

import contextlib
import errno
import fcntl
import os
import struct

from cdna.errors import ConfigError, ResourceError

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
IFF_UP = 0x1  # linux/if.h
IFNAMSIZ = 16

NEEDS = "CAP_NET_ADMIN is needed, or a tap made for you: sudo ip tuntap add dev {} mode tap user $USER"


def check_tap_name(name: str) -> None:
    """Raises ConfigError unless Linux takes this for an interface."""
    if not 1 <= len(os.fsencode(name)) < IFNAMSIZ:
        raise ConfigError(f"tap name {name!r}: give 1 to {IFNAMSIZ - 1} bytes")
    if name in (".", "..") or any(c in "/:%" or c.isspace() for c in name):
        raise ConfigError(f"tap name {name!r}: no white space, '/', ':' or '%', and neither '.' nor '..'")


def open_tap(name: str) -> int:
    """A nonblocking descriptor of the tap `name`, made where it does not exist, and up.

    Raises ConfigError for a name that cannot be and ResourceError where the device cannot be had.
    """
    check_tap_name(name)
    with contextlib.ExitStack() as undo:
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ResourceError(
                f"/dev/net/tun: {error.strerror}; tap devices need it (modprobe tun)"
            ) from None
        undo.callback(os.close, fd)
        _attach(fd, name)
        _bring_up(name)
        undo.pop_all()
    return fd


def _attach(fd: int, name: str) -> None:
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", os.fsencode(name), IFF_TAP | IFF_NO_PI))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise ResourceError(f"tap {name}: no permission: {NEEDS.format(name)}") from None
        if error.errno == errno.EBUSY:
            raise ResourceError(
                f"tap {name}: another program holds it; stop it or give another name"
            ) from None
        if error.errno == errno.EINVAL:
            raise ResourceError(f"{name} exists and is no single-queue tap; give another name") from None
        raise ResourceError(f"tap {name}: {error.strerror}") from None


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
