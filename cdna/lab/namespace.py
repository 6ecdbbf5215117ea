"""A guest's network namespace, with one tap in it.

Descriptors alone hold both: there is no mount under /run/netns and the tap is not persistent, so when this
process ends, however it ends, the kernel removes them. A program that runs inside by then keeps the
namespace, without the device.

    thread of a moment:  unshare(CLONE_NEWNET)   then the tap, its addresses, the loopback device
    this process:        fd (the namespace)      tap_fd (frames, the pump's)      a socket for its switches

A namespace belongs to a thread, and pyroute2 opens its socket in the namespace of the thread that calls, so
each operation runs in a thread that enters the namespace and ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import TYPE_CHECKING, Any, TypeVar

from cdna.base.closing import Closing
from cdna.errors import ResourceError
from cdna.lab import syscalls
from cdna.lab.gro import GroSwitch
from cdna.nic.device_drops import DeviceDrops

if TYPE_CHECKING:
    from pyroute2 import IPRoute

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address
Result = TypeVar("Result")

DEVICE = "eth0"
# A buffer of 65472 bytes takes a virtio-net header of 12, an Ethernet header of 14, a VLAN tag of 4, and
# this.
GSO_MAX = 65000  # bytes
GSO_MAX_SEGS = 1024  # segments of one frame: MAX_SEGMENTS of nic/offload/vnet.pxd
GSO_LIMITS = {"gso_max_size": GSO_MAX, "gso_max_segs": GSO_MAX_SEGS}  # what a device is told
IFA_F_NODAD = 0x02  # linux/if_addr.h: usable at once, nobody else can have it
# Have the kernel announce eth0's addresses when its MAC address is set: by gratuitous ARP, and by unsolicited
# neighbour advertisements (Documentation/networking/ip-sysctl.rst).
NOTIFY = (
    f"/proc/sys/net/ipv4/conf/{DEVICE}/arp_notify",
    f"/proc/sys/net/ipv6/conf/{DEVICE}/ndisc_notify",
)
LINK_LOOKS, LINK_PAUSE = 50, 0.002  # until the kernel has heard that the cable is plugged in; seconds
NO_IPV6 = (errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)  # how the kernel says that it is turned off


class Namespace(Closing):
    """A network namespace with the tap "eth0", up, with these addresses. ResourceError: what was refused.

    mac: aa:bb:cc:dd:ee:ff. gateways: routers of the default routes, at most one of each family.
    gro: the tap's device takes UDP datagrams that are joined.
    """

    def __init__(
        self,
        mac: str,
        addresses: Sequence[Interface],
        *,
        mtu: int = 1500,
        gateways: Sequence[Address] = (),
        gro: bool = False,
    ) -> None:
        self._device = _Device(mac, tuple(addresses), mtu, tuple(gateways), gro)
        self.fd, self.tap_fd, self._switch, self.drops = in_thread(lambda: _make(self._device))

    @property
    def takes(self) -> int:
        """What may be left to do in frames for the tap, a sum of `Takes`; 0: the device is gone."""
        from cdna.nic.tap import set_offloads

        with contextlib.suppress(OSError):
            return set_offloads(self.tap_fd, True)
        return 0

    @property
    def has_device(self) -> bool:
        """Whether the tap is there still: a program inside may have deleted it."""
        from cdna.nic.tap import is_attached

        return is_attached(self.tap_fd)

    def renew(self) -> None:
        """Makes the device anew, with the addresses and routes of the plan. ResourceError: it cannot.

        `tap_fd` is then another descriptor; the pump must not use the old one any more.
        """
        fresh = in_thread(lambda: _make_inside(self.fd, self._device, self.drops))
        os.close(self.tap_fd)
        self.tap_fd = fresh
        if self._device.gro:
            self._switch.set_joins_udp(True)

    @property
    def gro(self) -> bool:
        """Whether the device takes UDP datagrams that are joined, as it is now."""
        return self._switch.joins_udp()

    def set_gro(self, on: bool) -> None:
        """Has the device take such datagrams, or not. ResourceError: it cannot."""
        self._switch.set_joins_udp(on)
        self._device = replace(self._device, gro=on)

    def run(self, function: Callable[[IPRoute], Result]) -> Result:
        """What `function` returns, called in a thread inside, with a netlink socket of the namespace."""
        return in_thread(lambda: _inside(self.fd, function))

    def announce(self) -> None:
        """Has the kernel tell the neighbours which MAC address the addresses of eth0 are at now."""
        from pyroute2 import NetlinkError

        with contextlib.suppress(NetlinkError, OSError):  # the guest may have done anything to its device
            self.run(_announce)

    def close(self) -> None:
        """Gives up both; closing twice is harmless. The pump must have been told before (`Pump.remove`)."""
        if self.fd >= 0:
            self._switch.close()
            os.close(self.tap_fd)
            os.close(self.fd)
            self.drops.close()
            self.fd = self.tap_fd = -1


def in_thread(function: Callable[[], Result]) -> Result:
    """What `function` returns or raises, called in a thread that ends with it."""
    with ThreadPoolExecutor(1, "cdna-namespace") as thread:
        return thread.submit(function).result()


def configure(netlink: IPRoute, device: str, addresses: Sequence[Interface], **link: Any) -> None:
    """Sets a device's attributes, brings it up, gives it addresses. ResourceError: what was refused."""
    from pyroute2 import NetlinkError

    index = socket.if_nametoindex(device)
    try:
        netlink.link("set", index=index, state="up", **link)
    except NetlinkError as error:
        settings = ", ".join(f"{name} {value}" for name, value in link.items())
        raise ResourceError(f"{device} with {settings}: {os.strerror(error.code).lower()}") from None
    for interface in addresses:
        try:
            netlink.addr(
                "add",
                index=index,
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                flags=IFA_F_NODAD if interface.version == 6 else 0,
            )
        except NetlinkError as error:
            reason = os.strerror(error.code).lower()
            if interface.version == 6 and error.code in NO_IPV6:
                reason = "IPv6 is turned off on this machine; leave out the IPv6 addresses"
            raise ResourceError(f"{device} with address {interface}: {reason}") from None


@dataclass(frozen=True)
class _Device:
    mac: str
    addresses: tuple[Interface, ...]
    mtu: int
    gateways: tuple[Address, ...]
    gro: bool


def _make(device: _Device) -> tuple[int, int, GroSwitch, DeviceDrops]:
    """A new namespace, which is this thread's from now on, and its tap: descriptors, switch, drops."""
    from pyroute2 import IPRoute

    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError as error:
        raise ResourceError(
            f"a network namespace: {error.strerror}; run as root, or see sysctl user.max_net_namespaces"
        ) from None
    with contextlib.ExitStack() as undo:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, fd)
        with IPRoute() as netlink:
            configure(netlink, "lo", [])
        tap_fd = _make_device(device)
        undo.callback(os.close, tap_fd)
        switch = GroSwitch(DEVICE)
        undo.callback(switch.close)
        if device.gro:
            switch.set_joins_udp(True)
        undo.pop_all()
    return fd, tap_fd, switch, DeviceDrops(DEVICE)


def _make_inside(fd: int, device: _Device, drops: DeviceDrops) -> int:
    """As `_make_device`, in the namespace `fd`."""
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    tap_fd = _make_device(device)
    drops.follow(DEVICE)
    return tap_fd


def _make_device(device: _Device) -> int:
    """A descriptor of a new tap in this thread's namespace, with its addresses and routes."""
    from pyroute2 import IPRoute, NetlinkError

    from cdna.nic.tap import open_tap, set_speed

    with contextlib.ExitStack() as undo:
        (tap_fd,) = open_tap(DEVICE, vnet_header=True, up=False)
        undo.callback(os.close, tap_fd)
        _have_announced()
        set_speed(DEVICE)
        with IPRoute() as netlink:
            configure(netlink, DEVICE, device.addresses, address=device.mac, mtu=device.mtu, **GSO_LIMITS)
            for gateway in device.gateways:
                try:
                    index = netlink.link_lookup(ifname=DEVICE)[0]
                    netlink.route("add", dst="default", gateway=str(gateway), oif=index)
                except NetlinkError as error:
                    reason = os.strerror(error.code).lower()
                    raise ResourceError(f"default route by {gateway}: {reason}") from None
        undo.pop_all()
    return tap_fd


def _have_announced() -> None:
    """Has the kernel announce addresses in this thread's namespace."""
    for path in NOTIFY:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)


def _announce(netlink: IPRoute) -> None:
    """Sets the MAC address that the device has: the kernel takes it for a new one, and announces it."""
    for index in netlink.link_lookup(ifname=DEVICE):
        for _ in range(LINK_LOOKS):
            link = netlink.get_links(index)[0]
            if link.get_attr("IFLA_OPERSTATE") != "DOWN":
                break
            time.sleep(LINK_PAUSE)
        netlink.link("set", index=index, address=link.get_attr("IFLA_ADDRESS"))


def _inside(fd: int, function: Callable[[IPRoute], Result]) -> Result:
    from pyroute2 import IPRoute

    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    with IPRoute() as netlink:
        return function(netlink)
