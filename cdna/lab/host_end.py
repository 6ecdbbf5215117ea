"""The host's end of the wire, where that is a device: addresses by which host and guests reach each other."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from cdna.errors import ResourceError
from cdna.lab.namespace import GSO_LIMITS, Interface, configure, in_thread

if TYPE_CHECKING:
    from pyroute2 import IPRoute


def is_there(device: str) -> bool:
    """Whether this network namespace has such a device already."""
    try:
        socket.if_nametoindex(device)
    except (OSError, ValueError):
        return False
    return True


def wait_until_gone(device: str, seconds: float) -> None:
    """Waits for the device of a lab that was killed: the kernel takes a while to remove many guests'."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_there(device) and not in_thread(lambda: _stays(device)):
        time.sleep(0.02)


def _stays(device: str) -> bool:
    """Whether a device outlives the program that has it open."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        for link in netlink.get_links():
            if link.get("ifname") == device:
                return bool(link.get(("linkinfo", "data", "tun_persist")) != 0)
    return False


def give_addresses(device: str, addresses: Sequence[Interface], mtu: int) -> None:
    """Addresses and MTU for a device that goes with this lab. ResourceError: an address is in use.

    Frames of the host's are kept to what a guest's buffer takes.
    """

    def give() -> None:
        from pyroute2 import IPRoute

        from cdna.nic.tap import set_speed

        with IPRoute() as netlink:
            _check_free(netlink, device, addresses)
            configure(netlink, device, addresses, mtu=mtu, **GSO_LIMITS)
            set_speed(device)

    in_thread(give)


def _check_free(netlink: IPRoute, device: str, addresses: Sequence[Interface]) -> None:
    """An address in a network that the machine is in already would cut it off from there."""
    for index, other in _all_addresses(netlink):
        name = socket.if_indextoname(index)
        clash = next(
            (a for a in addresses if a.version == other.version and a.network.overlaps(other.network)), None
        )
        if clash is not None and name != device:
            raise ResourceError(
                f"address {clash} of {device}: {name} has {other} already; give other networks (--net)"
            )


def addresses_of(device: str) -> list[Interface]:
    """What the user has given a device; without its link-local address."""

    def ask() -> list[Interface]:
        from pyroute2 import IPRoute

        with IPRoute() as netlink:
            index = socket.if_nametoindex(device)
            return [a for i, a in _all_addresses(netlink) if i == index and not a.is_link_local]

    return in_thread(ask)


def _all_addresses(netlink: IPRoute) -> list[tuple[int, Interface]]:
    return [
        (a["index"], ip_interface(f"{a.get('address')}/{a['prefixlen']}"))
        for a in netlink.get_addr()
        if a.get("address")
    ]
