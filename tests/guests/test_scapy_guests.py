"""Guests for scapy in three lines, and the guests as scapy's interfaces."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.all import (
    ARP,
    ICMP,
    IP,
    TCP,
    UDP,
    ARP_am,
    Dot1Q,
    Ether,
    ICMPEcho_am,
    ICMPv6EchoRequest,
    IPv6,
    Net,
    Raw,
    conf,
    send,
    sendp,
    sniff,
    sr1,
    srp,
    srp1,
)
from scapy.error import Scapy_Exception
from scapy.layers import inet, inet6, l2

import cdna
from cdna.errors import ConfigError
from cdna.guests import scapy_neighbours

EVERYBODY = "ff:ff:ff:ff:ff:ff"
QUIET = {"verbose": 0, "timeout": 20}


@pytest.fixture(params=[False, True], ids=["stepped", "started"])
def guests(request: pytest.FixtureRequest) -> Iterator[Any]:
    with cdna.scapy_guests("cdna-alice", "cdna-bob", network="10.8.0.0/24", start=request.param) as guests:
        yield guests


@pytest.fixture
def answering(guests: Any) -> Iterator[None]:
    """Bob answers ARP and pings."""
    bob = guests[1]
    sniffers = [
        bob.am(ARP_am, IP_addr=bob.ip, ARP_addr=bob.mac, verbose=0).bg(),
        cdna.ScapySocket(bob.shared, ip=bob.ip).am(ICMPEcho_am, verbose=0).bg(),
    ]
    yield
    for sniffer in sniffers:
        if sniffer.running:
            sniffer.stop()


def test_guests_have_names_addresses_and_an_interface(guests):
    alice, bob = guests
    assert (alice.name, bob.name) == ("cdna-alice", "cdna-bob")
    assert (alice.ip, bob.ip) == ("10.8.0.1", "10.8.0.2")
    assert alice.mac != bob.mac
    assert str(alice.iface) == "cdna-alice"
    assert conf.ifaces.dev_from_name("cdna-bob").mac == bob.mac
    conf.ifaces.reload()
    assert conf.ifaces.dev_from_name("cdna-bob").ip == "10.8.0.2"
    assert "cdna-bob" in conf.ifaces.show(print_result=False)


@pytest.mark.usefixtures("answering")
def test_scapys_functions_take_a_guest_as_the_interface(guests):
    alice, bob = guests
    question = Ether(dst=EVERYBODY) / ARP(pdst=bob.ip)
    assert srp1(question, iface="cdna-alice", **QUIET)[ARP].hwsrc == bob.mac
    assert srp1(question, iface=alice.iface, **QUIET)[ARP].hwsrc == bob.mac
    answers, left = srp([question] * 3, iface="cdna-alice", **QUIET)
    assert (len(answers), len(left)) == (3, 0)
    answer = sr1(IP(dst=bob.ip) / ICMP(id=5), iface="cdna-alice", **QUIET)
    assert (answer[IP].src, answer[IP].dst, answer[ICMP].id) == (bob.ip, alice.ip, 5)
    answer = alice.sr1(Ether() / IP(dst=bob.ip) / ICMP(id=6), **QUIET)
    assert answer[ICMP].id == 6


def test_sniffing_an_interface_also_shows_what_its_guest_sends(guests):
    alice, bob = guests

    def send() -> None:
        sendp(Ether(dst=bob.mac, type=0x88B5) / Raw(b"out"), iface="cdna-alice", verbose=0)
        sendp(Ether(src=bob.mac, dst=alice.mac, type=0x88B5) / Raw(b"in"), iface="cdna-bob", verbose=0)

    seen = sniff(iface="cdna-alice", started_callback=send, count=2, timeout=20)
    # What is sent is shown at once, what is received when it is taken.
    assert sorted((p.src, p.dst) for p in seen) == sorted([(alice.mac, bob.mac), (bob.mac, alice.mac)])
    assert {p.sniffed_on for p in seen} == {"cdna-alice"}
    seen = sniff(iface="cdna-bob", filter=None, started_callback=send, count=2, timeout=20)
    assert len(seen) == 2


@pytest.mark.usefixtures("answering")
def test_a_port_that_is_closed(guests):
    """Nobody listens on bob's ports but this test, which sees the segment as it was sent."""
    alice, bob = guests
    with cdna.ScapySocket(bob.shared, type=0x0800) as watching, alice.l3 as l3:
        l3.send(IP(dst=bob.ip) / TCP(sport=1024, dport=80, flags="S", options=[("MSS", 1460)]))
        (segment,) = watching.sniff(count=1, timeout=20)
    assert segment[TCP].flags == "S"
    assert segment[TCP].options == [("MSS", 1460)]


def test_the_machine_ends_with_its_last_socket():
    gc.collect()
    before, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    alice, bob = cdna.scapy_guests("cdna-alice", "cdna-bob", start=True)
    machine = alice.machine
    alice.close()
    assert machine.nic.running
    bob.send(Ether(dst=EVERYBODY) / ARP(pdst="10.0.0.1"))
    bob.close()
    assert not machine.nic.running
    with pytest.raises(EOFError):
        bob.machine  # noqa: B018
    assert threading.active_count() == threads
    del machine, alice, bob  # and with them its memory
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert "cdna-alice" not in conf.ifaces.data
    assert not [route for route in conf.route.routes if route[3] == "cdna-alice"]


@pytest.mark.parametrize("start", [False, True])
def test_guests_that_are_forgotten_leave_nothing(start):
    gc.collect()
    before, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        alice, bob = cdna.scapy_guests("cdna-alice", "cdna-bob", start=start)
        alice.send(Ether(dst=bob.mac, type=0x88B5) / Raw(bytes(46)))
        assert len(bob.sniff(count=1, timeout=20)) == 1
        del alice, bob
        gc.collect()
    assert threading.active_count() == threads
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert "cdna-alice" not in conf.ifaces.data


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that scapy looks for in the host's network."""
    asked: list[str] = []
    for module, function in ((l2, "getmacbyip"), (inet, "getmacbyip"), (inet6, "getmacbyip6")):
        monkeypatch.setattr(module, function, lambda address, *_: asked.append(address))
    monkeypatch.setattr(scapy_neighbours, "ASK_FOR", 0.05)
    return asked


@pytest.mark.parametrize(
    "payload",
    [
        IPv6(dst="fd00::77") / ICMPv6EchoRequest(),
        IP(dst="192.0.2.77") / ICMP(),
        IP(dst=Net("192.0.2.77/32")) / ICMP(),
        Dot1Q(vlan=7) / IPv6(dst="fd00::77") / UDP(),
        Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP(dst="192.0.2.77") / UDP(),
    ],
    ids=["v6", "v4", "v4 set", "tagged v6", "tagged twice"],
)
@pytest.mark.parametrize("network", [None, "10.8.0.0/24"])
def test_an_address_is_looked_for_on_the_nic_alone(payload, network, asked):
    with cdna.scapy_guests("cdna-alice", "cdna-bob", network=network) as (alice, _):
        with pytest.raises(Scapy_Exception, match="nobody answers for"):
            alice.send(Ether() / payload)
        with pytest.raises(Scapy_Exception, match="nobody answers for"):
            sendp(Ether() / payload, iface="cdna-alice", verbose=0)
    assert asked == []


def test_what_a_packet_leaves_open_is_the_guests(guests, asked):
    alice, bob = guests
    alice.send(Ether(dst=bob.mac) / IPv6(dst="fd00::2") / UDP())
    alice.send(Ether() / Raw(bytes(46)))
    alice.send(Ether() / ARP(pdst=bob.ip))
    alice.send(Ether() / IP(dst=alice.ip) / UDP())
    first, second, third = bob.sniff(count=3, timeout=20)
    assert first[IPv6].src == scapy_neighbours.link_local(alice.mac)
    assert (second.src, second.dst) == (alice.mac, EVERYBODY)
    assert (third.dst, third[ARP].psrc) == (EVERYBODY, alice.ip)
    assert asked == []


def test_a_directed_broadcast_is_for_everybody(guests):
    alice, bob = guests
    alice.send(Ether() / IP(dst="10.8.0.255") / UDP())
    with alice.l3 as l3:
        l3.send(IP(dst="10.8.0.255") / UDP())
    send(IP(dst="10.8.0.255") / UDP(), iface="cdna-alice", verbose=0)
    assert [p.dst for p in bob.sniff(count=3, timeout=20)] == [EVERYBODY] * 3


@pytest.mark.usefixtures("answering")
def test_without_iface_packets_for_a_guest_go_through_another(guests):
    alice, bob = guests
    assert conf.route.route(bob.ip) == ("cdna-alice", alice.ip, "0.0.0.0")
    assert conf.route.route(alice.ip) == ("cdna-bob", bob.ip, "0.0.0.0")
    assert conf.route.route("10.8.0.77")[0] == "cdna-alice"
    assert conf.route.route(alice.ip, dev="cdna-alice")[0] == "cdna-alice"
    near = scapy_neighbours.link_local(bob.mac)
    assert conf.route6.route(near)[:2] == ("cdna-alice", scapy_neighbours.link_local(alice.mac))
    answer = sr1(IP(dst=bob.ip) / ICMP(id=7), **QUIET)
    assert (answer[IP].src, answer[IP].dst, answer[ICMP].id) == (bob.ip, alice.ip, 7)


def test_guests_of_the_same_names_replace_those_before():
    alice, bob = cdna.scapy_guests("cdna-alice", "cdna-bob")
    old = alice.machine
    alice, carol = again = cdna.scapy_guests("cdna-alice", "cdna-carol")
    with pytest.raises(ConfigError, match="was closed"):
        old.step()
    with pytest.raises(EOFError):
        bob.recv()
    assert "cdna-bob" not in conf.ifaces.data
    alice.send(Ether(dst=carol.mac, type=0x88B5) / Raw(bytes(46)))
    assert len(carol.sniff(count=1, timeout=20)) == 1
    again.close()
    assert not {"cdna-alice", "cdna-carol"} & set(conf.ifaces.data)
    assert not [route for route in conf.route.routes if route[3] == "cdna-alice"]
    assert not [route for route in conf.route6.routes if route[3] == "cdna-alice"]
    bob.close()


def test_without_a_network(monkeypatch):
    routes = list(conf.route.routes)
    with cdna.scapy_guests("cdna-alice", network=None, vlan=7, buffer_size=9024) as (alice,):
        assert alice.ip is None
        assert conf.route.routes == routes
        assert alice.machine.nic.info(0)["vlan"] == 7


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), {}, "give a name for each guest"),
        (("lo",), {}, "scapy knows an interface of this name"),
        (("a", "a"), {}, "guest 'a' exists"),
        (("a",), {"network": "10.0.0.0/33"}, "network '10.0.0.0/33'"),
        (("a",), {"network": "10.0.0.1/24"}, "has host bits set"),
        (("a", "b", "c"), {"network": "10.0.0.0/30"}, "no 3 addresses"),
        (("a",), {"wire": "no such"}, "unknown wire"),
        (("a", "b"), {"mac": "02:00:00:00:00:01"}, "is context 0's already"),
    ],
)
def test_guests_that_cannot_be(names, options, message):
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=message):
        cdna.scapy_guests(*names, **options)
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not {"a", "b", "c"} & set(conf.ifaces.data)


NOTEBOOK = """
import cdna
from scapy.all import *
alice, bob = cdna.scapy_guests("alice", "bob", **{options})
bob.am(ARP_am, IP_addr=bob.ip, ARP_addr=bob.mac, verbose=0).bg()
print(alice.sr1(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=bob.ip), timeout=20, verbose=0).hwsrc == bob.mac)
"""


@pytest.mark.parametrize("options", ["{}", "{'start': True}"])
def test_a_program_that_ends_in_the_middle_of_it(options):
    """Neither the sniffer's thread nor the NIC's keeps the interpreter, or crashes it."""
    program = [sys.executable, "-c", NOTEBOOK.replace("{options}", options)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
