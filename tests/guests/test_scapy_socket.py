"""A guest as a scapy socket: what scapy does with sockets, and what becomes of the packets."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.all import (
    ARP,
    ICMP,
    IP,
    UDP,
    ARP_am,
    AsyncSniffer,
    Automaton,
    Dot1Q,
    Dot3,
    Ether,
    ICMPEcho_am,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
    ObjectPipe,
    Raw,
    bridge_and_sniff,
    sendp,
    sniff,
)
from scapy.automaton import ATMT
from scapy.error import Scapy_Exception

from cdna.errors import ConfigError, ResourceError
from cdna.guests import shared_driver
from cdna.guests.scapy_neighbours import link_local
from cdna.guests.scapy_socket import ScapyL3Socket, ScapySocket
from tests.support.scapy_pair import (
    ALICE_IP,
    BOB_IP,
    EVERYBODY,
    QUIET,
    Answering,
    Pair,
    data_to,
    numbers,
    wait_for,
)

# --- what scapy does with a socket ----------------------------------------------------------------------


def test_sendp_and_sniff(pair):
    sendp([data_to(pair.bob, i) for i in range(100)], socket=pair.alice, verbose=0)
    received = sniff(opened_socket=pair.bob, count=100, timeout=20)
    assert numbers(received) == list(range(100))
    assert all(packet.src == pair.alice.mac for packet in received)


@pytest.mark.parametrize("size", [14, 15, 59, 60, 1514, 2049, 9018])
def test_frames_of_every_length_arrive_as_they_were(pair, size):
    frame = bytes.fromhex((pair.bob.mac + pair.alice.mac).replace(":", "")) + b"\x88\xb5"
    frame = frame.ljust(size, b"\x5c")
    assert pair.alice.send(frame) == size
    (received,) = pair.bob.sniff(count=1, timeout=20)
    assert bytes(received) == frame


@pytest.mark.parametrize("size", [13, 9019])
def test_a_frame_of_no_possible_length(stepped, size):
    with pytest.raises(ConfigError, match=f"has {size} bytes"):
        stepped.alice.send(bytes(size))


@pytest.mark.parametrize("threaded", [False, True])
def test_a_question_and_its_answer(pair, threaded):
    with Answering(ARP_am, pair.bob, IP_addr=BOB_IP, ARP_addr=pair.bob.mac):
        answer = pair.alice.sr1(Ether(dst=EVERYBODY) / ARP(pdst=BOB_IP), threaded=threaded, **QUIET)
    assert answer[ARP].hwsrc == pair.bob.mac
    assert answer[ARP].pdst == ALICE_IP


def test_many_questions_and_their_answers(pair):
    with Answering(ICMPEcho_am, pair.bob):
        asked = [
            Ether(dst=pair.bob.mac) / IP(dst=BOB_IP) / ICMP(id=7, seq=i) / Raw(b"x" * (i * 20))
            for i in range(40)
        ]
        answers, left = pair.alice.sr(asked, **QUIET)
    assert len(answers) == 40
    assert not left
    assert all(bytes(q[ICMP].payload) == bytes(a[ICMP].payload)[: len(q[ICMP].payload)] for q, a in answers)
    assert all(a.time >= q.sent_time for q, a in answers)


def test_an_automaton_listens_and_sends(pair):
    class Echo(Automaton):
        def master_filter(self, packet: Any) -> bool:
            return bool(packet.type == 0x88B5)

        @ATMT.state(initial=1)
        def LISTEN(self) -> None:
            pass

        @ATMT.receive_condition(LISTEN)
        def heard(self, packet: Any) -> None:
            raise self.DONE(packet)

        @ATMT.state(final=1)
        def DONE(self, packet: Any) -> bytes:
            self.send(Ether(dst=packet.src, type=0x88B6) / Raw(bytes(packet.payload)))
            return bytes(packet.payload)

    echo = Echo(
        ll=lambda **_: ScapySocket(pair.bob.shared), recvsock=lambda **_: ScapySocket(pair.bob.shared)
    )
    echo.runbg()
    wait_for(lambda: echo.listen_sock)
    pair.alice.send(data_to(pair.bob, 77))
    (answer,) = pair.alice.sniff(count=1, timeout=20)
    assert answer.type == 0x88B6
    assert numbers([answer]) == [77]
    wait_for(lambda: not echo.isrunning())
    echo.destroy()


def test_a_bridge_between_two_machines(tmp_path):
    left, right = Pair("stepped", tmp_path, anti_spoof=False), Pair("stepped", tmp_path, anti_spoof=False)
    right.alice.driver.context.set(mac="02:00:00:00:00:aa")
    right.bob.driver.context.set(mac="02:00:00:00:00:bb")
    frames = [
        Ether(src=left.alice.mac, dst=left.bob.mac, type=0x88B5) / Raw(bytes([i]) * 50) for i in range(20)
    ]
    sendp(frames, socket=left.alice, verbose=0)
    bridged = bridge_and_sniff(
        left.bob, right.alice, xfrm12=lambda p: p.src == left.alice.mac, count=20, timeout=20
    )
    assert [bytes(p) for p in bridged] == [bytes(p) for p in frames]
    # Nobody over there has that address: all of it leaves by the wire.
    assert right.machine.wire.get() == [bytes(p) for p in frames]
    left.close()
    right.close()


def test_an_asynchronous_sniffer_ends_when_told_to(pair):
    sniffer = AsyncSniffer(opened_socket=pair.bob)
    sniffer.start()
    wait_for(lambda: hasattr(sniffer, "continue_sniff"))
    pair.alice.send(data_to(pair.bob, 3))
    wait_for(lambda: pair.drivers[0].context.stats()["tx_frames"] == 1)
    wait_for(lambda: not pair.bob._inbox.poll() or sniffer.count)
    wait_for(lambda: sniffer.count == 1)
    results = sniffer.stop()
    assert numbers(results) == [3]
    assert not sniffer.thread.is_alive()
    assert not pair.bob.closed


def test_sniffing_several_sockets_and_a_pipe_at_once(pair):
    pipe = ObjectPipe("pipe")
    pipe.send("hello")
    assert ScapySocket.select([pair.alice, pipe, pair.bob], 20) == [pipe]
    pair.alice.send(data_to(pair.bob, 1))
    pair.bob.send(data_to(pair.alice, 2))
    received = sniff(opened_socket={pair.alice: "a", pair.bob: "b"}, count=2, timeout=20)
    assert sorted((p.sniffed_on, n) for p, n in zip(received, numbers(received), strict=True)) == [
        ("a", 2),
        ("b", 1),
    ]
    pipe.close()


# --- what is sent ---------------------------------------------------------------------------------------


def test_the_guests_own_addresses_are_filled_in_and_the_packet_stays_as_it_was(pair):
    packet = Ether(dst=pair.bob.mac) / ARP(pdst=BOB_IP)
    pair.alice.send(packet)
    assert "src" not in packet.fields
    (received,) = pair.bob.sniff(count=1, timeout=20)
    assert (received.src, received[ARP].hwsrc, received[ARP].psrc) == (
        pair.alice.mac,
        pair.alice.mac,
        ALICE_IP,
    )
    pair.bob.send(packet)  # the same one again, from somebody else, who also gets it
    assert pair.bob.sniff(count=1, timeout=20)[0].src == pair.bob.mac
    assert pair.bob.driver.context.stats()["tx_drop_spoof"] == 0
    pair.alice.send(Dot3(dst=pair.bob.mac) / Raw(b"802.3"))
    assert pair.bob.sniff(count=1, timeout=20)[0].src == pair.alice.mac


def test_what_the_guest_may_not_send_is_dropped_and_counted(pair):
    pair.alice.send(Ether(src="02:00:00:00:00:99", dst=pair.bob.mac) / Raw(bytes(46)))
    pair.alice.send(Ether(dst=pair.bob.mac) / Dot1Q(vlan=5) / Raw(bytes(46)))
    pair.alice.send(data_to(pair.bob, 1))
    assert numbers(pair.bob.sniff(count=1, timeout=20)) == [1]
    stats = pair.alice.driver.context.stats()
    assert (stats["tx_drop_spoof"], stats["tx_drop_vlan"]) == (1, 1)


def test_a_full_ring_that_stays_full_is_an_error(tmp_path, monkeypatch):
    pair = Pair("stepped", tmp_path, tx_ring=8)
    outside = Ether(dst="02:00:00:00:00:99", type=0x88B5) / Raw(bytes(46))
    monkeypatch.setattr(shared_driver, "PATIENCE", 0.0)
    with pytest.raises(ResourceError, match="the NIC took no frame"):
        sendp([outside] * 1000, socket=pair.alice, verbose=0)  # nobody takes what the wire has sent
    while pair.machine.wire.get():
        pair.machine.step()
    pair.alice.send(data_to(pair.bob, 4))
    assert numbers(pair.bob.sniff(count=1, timeout=20)) == [4]
    pair.close()


# --- layer 3 --------------------------------------------------------------------------------------------


def test_a_ping_at_layer_3_asks_for_the_address_once(pair):
    with (
        Answering(ARP_am, pair.bob, IP_addr=BOB_IP, ARP_addr=pair.bob.mac),
        Answering(ICMPEcho_am, pair.bob),
        pair.alice.l3 as l3,
        ScapySocket(pair.bob.shared, type=0x0806) as questions,
    ):
        for i in range(3):
            answer = l3.sr1(IP(dst=BOB_IP) / ICMP(seq=i), **QUIET)
            assert (answer[IP].src, answer[ICMP].type, answer[ICMP].seq) == (BOB_IP, 0, i)
        assert len(questions.sniff(count=1, timeout=20)) == 1
        assert questions.recv() is None


def test_a_ping_over_ipv6(stepped):
    mine, theirs = link_local(stepped.alice.mac), link_local(stepped.bob.mac)

    def answer(packet: Any) -> None:
        if ICMPv6ND_NS in packet and packet[ICMPv6ND_NS].tgt == theirs:
            advert = ICMPv6ND_NA(tgt=theirs, S=1) / ICMPv6NDOptDstLLAddr(lladdr=stepped.bob.mac)
            stepped.bob.send(Ether(dst=packet.src) / IPv6(src=theirs, dst=packet[IPv6].src) / advert)
        elif ICMPv6EchoRequest in packet:
            echo = packet[ICMPv6EchoRequest]
            reply = IPv6(src=theirs, dst=mine) / ICMPv6EchoReply(id=echo.id, seq=echo.seq, data=echo.data)
            stepped.bob.send(Ether(dst=packet.src) / reply)

    stepped.bob.driver.context.set(all_multicast=True)
    sniffer = AsyncSniffer(opened_socket=stepped.bob, prn=answer, store=False)
    sniffer.start()
    wait_for(lambda: hasattr(sniffer, "continue_sniff"))
    with ScapyL3Socket(stepped.alice.shared) as l3:
        reply = l3.sr1(IPv6(src=mine, dst=theirs) / ICMPv6EchoRequest(id=1, seq=2, data=b"six"), **QUIET)
    assert reply[ICMPv6EchoReply].data == b"six"
    sniffer.stop()


def test_multicast_and_broadcast_at_layer_3_need_no_question(stepped):
    with stepped.alice.l3 as l3:
        l3.send(IP(dst="224.0.0.251") / UDP())
        l3.send(IP(dst="255.255.255.255") / UDP())
        l3.send(IPv6(src="fe80::1", dst="ff02::fb") / UDP())
    sent = [Ether(frame) for frame in stepped.machine.wire.get()]
    assert [p.dst for p in sent] == ["01:00:5e:00:00:fb", EVERYBODY, "33:33:00:00:00:fb"]


def test_what_is_not_near_goes_to_the_gateway(stepped):
    with (
        Answering(ARP_am, stepped.bob, IP_addr="10.9.0.254", ARP_addr=stepped.bob.mac),
        ScapyL3Socket(stepped.alice.shared, ip=ALICE_IP, network="10.9.0.0/24", gateway="10.9.0.254") as l3,
        ScapySocket(stepped.bob.shared, type=0x0800) as routed,
    ):
        l3.send(IP(dst="192.0.2.1") / UDP(dport=9))
        (packet,) = routed.sniff(count=1, timeout=20)
        assert (packet.dst, packet[IP].dst) == (stepped.bob.mac, "192.0.2.1")


def test_layer_3_without_an_answer_or_without_ip(stepped, monkeypatch):
    monkeypatch.setattr("cdna.guests.scapy_neighbours.ASK_FOR", 0.05)
    with stepped.alice.l3 as l3:
        with pytest.raises(Scapy_Exception, match=r"nobody answers for 10\.9\.0\.77"):
            l3.send(IP(dst="10.9.0.77") / UDP())
        with pytest.raises(ValueError, match="give an IP or IPv6 packet"):
            l3.send(Ether())
