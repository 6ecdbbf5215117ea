"""A namespace held by descriptors: what is in it, and that nothing of it stays."""

import os
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from cdna.errors import ResourceError
from cdna.lab.namespace import GSO_LIMITS, Namespace
from tests.support.lab import needs_namespaces
from tests.support.open_files import open_files

pytestmark = needs_namespaces

MAC = "02:00:00:00:00:01"
ADDRESSES = (ip_interface("10.77.0.1/24"), ip_interface("fd77::1/64"))


def test_device() -> None:
    with Namespace(MAC, ADDRESSES, mtu=9000, gateways=[ip_address("10.77.0.254")]) as namespace:
        links = {
            link.get("ifname"): link for link in namespace.run(lambda netlink: list(netlink.get_links()))
        }
        addresses = namespace.run(lambda netlink: list(netlink.get_addr()))
        routes = namespace.run(lambda netlink: list(netlink.get_routes(family=2)))
    assert links.keys() == {"lo", "eth0"}
    eth0 = links["eth0"]
    assert (eth0.get("address"), eth0.get("mtu")) == (MAC, 9000)
    assert {name: eth0.get(name) for name in GSO_LIMITS} == GSO_LIMITS
    found = {f"{a.get('address')}/{a['prefixlen']}" for a in addresses}
    assert {"10.77.0.1/24", "fd77::1/64", "127.0.0.1/8"} <= found
    tentative = 0x40  # linux/if_addr.h: duplicate address detection is not over
    assert all(not a["flags"] & tentative for a in addresses if a.get("address") == "fd77::1")
    assert "10.77.0.254" in {route.get("gateway") for route in routes}


def test_this_process_stays_where_it_was() -> None:
    before = os.readlink("/proc/self/ns/net")
    with Namespace(MAC, ADDRESSES) as namespace:
        assert os.readlink("/proc/thread-self/ns/net") == before
        assert os.readlink(f"/proc/self/fd/{namespace.fd}") != before


def test_nothing_is_mounted_and_no_descriptor_stays() -> None:
    Namespace(MAC, ADDRESSES).close()
    mounts = Path("/proc/self/mounts")
    fds, mounted = open_files(), mounts.read_text()
    namespace = Namespace(MAC, ADDRESSES)
    assert mounts.read_text() == mounted
    namespace.close()
    namespace.close()
    assert open_files() == fds


def test_what_the_kernel_refuses_is_one_line_and_leaves_nothing() -> None:
    fds = open_files()
    with pytest.raises(ResourceError, match=r"default route by 10.99.0.1"):
        Namespace(MAC, ADDRESSES, gateways=[ip_address("10.99.0.1")])
    with pytest.raises(ResourceError, match=r"eth0 with address 10.77.0.1/24: file exists"):
        Namespace(MAC, [ADDRESSES[0], ADDRESSES[0]])
    assert open_files() == fds
