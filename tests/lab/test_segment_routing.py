"""TCP behind IPv6 extension headers, through the kernels of two guests: in whole frames, and cut."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.abi import Takes
from cdna.lab.lab import Lab
from cdna.lab.namespace import in_thread
from tests.lab.test_lab import in_parallel, plan, receive, send
from tests.support.lab import DEADLINE, needs_namespaces

pytestmark = needs_namespaces

SIZE = 4 << 20
IPV6_HOPOPTS, IPV6_DSTOPTS = 54, 59  # linux/in6.h
EXPERIMENT = 0x1E  # an option that is skipped where it is not known (RFC 4727, 3.6)
SEGMENT = 1440  # bytes, about: what a frame that was cut carries


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(plan(2)) as lab:
        yield lab


def configure(lab: Lab, guest: str, own: str, other: str, **route: object) -> None:
    """Gives a guest an address that lies behind its neighbour's, and the route to the other one."""

    def change() -> None:
        from pyroute2 import IPRoute
        from pyroute2.netns import setns

        setns(lab.member(guest).namespace.fd)
        for device in ("all", "eth0"):
            Path(f"/proc/sys/net/ipv6/conf/{device}/seg6_enabled").write_text("1")
        with IPRoute() as netlink:
            netlink.addr("add", index=1, address=own, prefixlen=128)
            eth0 = netlink.link_lookup(ifname="eth0")[0]
            netlink.route("add", dst=f"{other}/128", oif=eth0, **route)

    in_thread(change)


def stream(lab: Lab, guest: str, address: str, options: dict[int, bytes]) -> socket.socket:
    def make() -> socket.socket:
        from pyroute2.netns import setns

        setns(lab.member(guest).namespace.fd)
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.settimeout(DEADLINE)
        for name, value in options.items():
            sock.setsockopt(socket.IPPROTO_IPV6, name, value)
        sock.bind((address, 0))
        return sock

    return in_thread(make)


def transfer(lab: Lab, source: str, to: str, options: dict[int, bytes]) -> int:
    """Sends SIZE bytes from g1 to g2 and checks them. Returns how many frames g2 received meanwhile."""
    block = bytes(range(251)) * 261
    before = lab.counters("g2")["rx_frames"]
    with stream(lab, "g2", to, {}) as listener, stream(lab, "g1", source, options) as sender:
        listener.listen()
        sender.connect(listener.getsockname())
        connection, _ = listener.accept()
        connection.settimeout(DEADLINE)
        with connection:
            received = in_parallel(lambda: send(sender, block, SIZE), lambda: receive(connection))
    assert received == (block * (SIZE // len(block) + 1))[:SIZE]
    return lab.counters("g2")["rx_frames"] - before


def check(lab: Lab, source: str, to: str, options: dict[int, bytes] | None = None) -> None:
    whole = lab.member("g2").context.options["takes"]
    assert transfer(lab, source, to, options or {}) < SIZE / SEGMENT / 2
    for takes in (Takes.TAKES_CSUM, 0):
        lab.member("g2").context.set(takes=takes)
        assert transfer(lab, source, to, options or {}) > SIZE / SEGMENT * 0.9
    lab.member("g2").context.set(takes=whole)
    for guest in ("g1", "g2"):
        counters = lab.counters(guest)
        assert [counters[name] for name in ("tx_drop_invalid", "tap_drop_tx", "tap_drop_rx", "faults")] == [
            0
        ] * 4


@pytest.mark.parametrize("hops", [1, 14])
def test_segment_routing(lab: Lab, hops: int) -> None:
    """A routing header whose next segment is the neighbour, and whose last is behind it (RFC 8986, 5)."""
    if not Path("/proc/sys/net/ipv6/conf/all/seg6_enabled").exists():
        pytest.skip("this kernel has no segment routing")
    near, far = ("fd77::1", "fd77::2"), ("fd99::1", "fd99::2")
    configure(lab, "g2", far[1], far[0], gateway=near[0])
    encap = {"type": "seg6", "mode": "inline", "segs": ",".join([near[1]] * hops)}
    configure(lab, "g1", far[0], far[1], gateway=near[1], encap=encap)
    check(lab, far[0], far[1])


OPTIONS = {
    "destination options": {IPV6_DSTOPTS: bytes([0, 0, 1, 4]) + bytes(4)},
    "hop-by-hop options": {IPV6_HOPOPTS: bytes([0, 0, 1, 4]) + bytes(4)},
    "long options of both kinds": {
        IPV6_HOPOPTS: bytes([0, 31, EXPERIMENT, 252]) + bytes(252),
        IPV6_DSTOPTS: bytes([0, 31, EXPERIMENT, 252]) + bytes(252),
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_socket(lab: Lab, options: dict[int, bytes]) -> None:
    check(lab, "fd77::1", "fd77::2", options)
