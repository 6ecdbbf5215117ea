"""UDP in large frames between the wires and Linux's own stack: it takes ours, and we take its."""

import contextlib
import dataclasses
import os
import socket

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from cdna.abi import OffloadKind, Takes
from cdna.nic.packet_wire import PacketWire
from cdna.nic.tap_wire import TapWire
from cdna.nic.wire import finish_offload
from tests.support.large import ETHERTYPE, KINDS, finished, large
from tests.support.namespace import in_namespace, make_veth, until
from tests.support.tcp import THERE

DEVICE, WIRE = "cdna-udp0", "cdna-udp1"
HOST = {IP: ("10.0.0.2", 24), IPv6: ("fd00::2", 64)}
PEER = {IP: "10.0.0.1", IPv6: "fd00::1"}
PORT, UDP_SEGMENT = 8, 103  # of the frames in KINDS; linux/udp.h
HELLO = b"are you there?"
IFA_F_NODAD = 2

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")


@contextlib.contextmanager
def wire_to_linux(how, ip):
    """A wire whose far end is this namespace's stack, a UDP socket there, and the device's MAC address."""
    from pyroute2 import IPRoute

    if how == "packet":
        make_veth(DEVICE, WIRE)
        made = PacketWire(WIRE)
    else:
        made = TapWire(DEVICE, vnet_header=how == "tap")
    address, length = HOST[ip]
    family = socket.AF_INET if ip is IP else socket.AF_INET6
    with made as wire, IPRoute() as netlink:
        index = netlink.link_lookup(ifname=DEVICE)[0]
        netlink.addr("add", index=index, address=address, prefixlen=length, flags=IFA_F_NODAD)
        netlink.neigh(
            "add", dst=PEER[ip], lladdr=THERE.hex(":"), ifindex=index, state=0x80, family=family
        )  # 0x80: permanent
        device_mac = bytes.fromhex(netlink.get_links(index)[0].get_attr("IFLA_ADDRESS").replace(":", ""))
        until(lambda: wire.link)
        with socket.socket(family, socket.SOCK_DGRAM) as stack:
            stack.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            stack.bind((address, PORT))
            stack.setblocking(False)
            ready(wire, stack, device_mac, ip)
            stack.settimeout(20)
            yield wire, stack, device_mac


def ready(wire, stack, device_mac, ip):
    """Waits until datagrams arrive: a new device's IPv6 takes a while."""
    kind = dataclasses.replace(KINDS["ufo4" if ip is IP else "ufo6"], length=len(HELLO), mss=1448)
    frame, offload = large(kind, device_mac, THERE)
    (frame,) = finish_offload(frame[: -len(HELLO)] + HELLO, offload)

    def heard():
        wire.transmit([frame])
        with contextlib.suppress(BlockingIOError):
            return stack.recv(65536) == HELLO

    until(heard)


def receive(stack):
    """The next datagram that is not of those that found the stack ready."""
    while True:
        data = stack.recv(65536)
        if data != HELLO:
            return data


def payload(frame, offload):
    return frame[offload.csum_start + 8 :]


@pytest.mark.parametrize("how", ["tap", "plain tap", "packet"])
@pytest.mark.parametrize("length", [1473, 5000, 65480])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_linux_puts_our_fragments_together(ip, length, how):
    kind = dataclasses.replace(KINDS["ufo4" if ip is IP else "ufo6"], length=length, mss=1448)

    def send():
        with wire_to_linux(how, ip) as (wire, stack, device_mac):
            frame, offload = large(kind, device_mac, THERE)
            parts = finish_offload(frame, offload)
            assert len(parts) == -(-(length + 8) // 1448)
            assert wire.transmit(parts) == len(parts)
            assert receive(stack) == payload(frame, offload)

    in_namespace(send)


@pytest.mark.parametrize("how", ["tap", "packet"])
@pytest.mark.parametrize("length", [1473, 65480])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_linux_takes_a_datagram_that_is_yet_to_be_fragmented(ip, length, how):
    kind = dataclasses.replace(KINDS["ufo4" if ip is IP else "ufo6"], length=length, mss=1448)

    def send():
        with wire_to_linux(how, ip) as (wire, stack, device_mac):
            assert wire.offloads & Takes.TAKES_UFO
            frame, offload = large(kind, device_mac, THERE)
            assert wire.transmit_offload([(frame, offload)]) == 1
            assert receive(stack) == payload(frame, offload)

    in_namespace(send)


@pytest.mark.parametrize("how", ["tap", "packet"])
@pytest.mark.parametrize(("length", "mss"), [(1401, 1400), (64 * 100, 100), (63000, 1400)])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_linux_takes_several_datagrams_in_one_frame(ip, length, mss, how):
    kind = dataclasses.replace(KINDS["uso4" if ip is IP else "uso6"], length=length, mss=mss)

    def send():
        with wire_to_linux(how, ip) as (wire, stack, device_mac):
            if not wire.offloads & Takes.TAKES_USO4:
                pytest.skip("this kernel's taps take no UDP segments (Linux 6.2)")
            frame, offload = large(kind, device_mac, THERE)
            assert wire.transmit_offload([(frame, offload)]) == 1
            whole = payload(frame, offload)
            for at in range(0, length, mss):
                assert receive(stack) == whole[at : at + mss]

    in_namespace(send)


@pytest.mark.parametrize("how", ["tap", "packet"])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_several_datagrams_that_linux_leaves_in_one_frame(ip, how):
    """A program's UDP_SEGMENT reaches the wire as it is, and what the NIC makes of it is right."""
    data = bytes(range(250)) * 40

    def look():
        with wire_to_linux(how, ip) as (wire, stack, device_mac):
            if not wire.offloads & Takes.TAKES_USO4:
                pytest.skip("this kernel's taps take no UDP segments (Linux 6.2)")
            stack.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1400)
            assert stack.sendto(data, (PEER[ip], 9)) == len(data)
            pairs = []

            def ours():
                pairs.extend(
                    pair
                    for pair in wire.receive_offload()
                    if pair[0][6:14] == device_mac + ETHERTYPE[ip] and pair[1] and len(pair[0]) > 1000
                )
                return pairs

            until(ours)
            ((frame, offload),) = pairs
            assert frame[offload.csum_start + 8 :] == data
            assert offload.hdr_len == offload.csum_start + 8 + OffloadKind.OFFLOAD_UDP_SEGMENTS
            assert (offload.csum_offset, offload.mss) == (6, 1400)
            assert finish_offload(frame, offload) == finished(frame, offload)

    in_namespace(look)


@pytest.mark.parametrize("how", ["tap", "packet"])
def test_linux_takes_a_datagram_without_checksum(how):
    """What SO_NO_CHECK leaves: fragments to be made, no checksum to be completed. Over IPv4 alone."""

    def send():
        with wire_to_linux(how, IP) as (wire, stack, device_mac):
            frame, offload = large(KINDS["ufo4"], device_mac, THERE)
            at = offload.csum_start + 6
            frame = frame[:at] + bytes(2) + frame[at + 2 :]
            assert wire.transmit_offload([(frame, offload._replace(csum_offset=0))]) == 1
            assert receive(stack) == payload(frame, offload)

    in_namespace(send)
