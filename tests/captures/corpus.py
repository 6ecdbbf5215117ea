"""Frames of many protocols, built with scapy and kept in frames.pcapng, which running this file writes.

All are from ALICE to BOB, or to a group or everybody. Each has a name, which the file keeps as its comment.
Nothing here depends on the time, the host or its routes: the file comes out byte for byte the same.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from scapy.contrib.lldp import (
    LLDPDUChassisID,
    LLDPDUEndOfLLDPDU,
    LLDPDUPortID,
    LLDPDUTimeToLive,
)
from scapy.contrib.mpls import MPLS
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ntp import NTP
from scapy.layers.ppp import PPP, PPPoE, PPPoED
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit, SCTPChunkSACK
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

FILE = Path(__file__).with_name("frames.pcapng")

ALICE, BOB = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
IP4 = {"src": "192.0.2.10", "dst": "192.0.2.11"}
IP6 = {"src": "2001:db8::a", "dst": "2001:db8::b"}
FIRST_NS = 1_600_000_000_123_456_789  # time of the first frame; the others follow at 1.000000001 s
STEP_NS = 1_000_000_001

TSTAMP = ("Timestamp", (0x01020304, 0x0A0B0C0D))


def text(n: int) -> bytes:
    """n bytes that are not all the same."""
    return bytes((7 * i + (i >> 8)) & 0xFF for i in range(n))


def bob(**fields: Any) -> Packet:
    return Ether(src=ALICE, dst=BOB, **fields)


def group(to: str, **fields: Any) -> Packet:
    return Ether(src=ALICE, dst=to, **fields)


def v4(**fields: Any) -> Packet:
    return bob() / IP(**{**IP4, **fields})


def v6(**fields: Any) -> Packet:
    return bob() / IPv6(**{**IP6, **fields})


def link_frames() -> dict[str, Any]:
    """What is not IP: ARP, groups, 802.3 frames, protocols that no NIC knows."""
    lldp = (
        LLDPDUChassisID(subtype=4, id=ALICE)
        / LLDPDUPortID(subtype=5, id=b"eth0")
        / LLDPDUTimeToLive(ttl=120)
        / LLDPDUEndOfLLDPDU()
    )
    who = ARP(op=1, hwsrc=ALICE, psrc="192.0.2.10", pdst="192.0.2.11")
    discovery = BOOTP(chaddr=bytes.fromhex(ALICE.replace(":", "")), xid=0x12345678)
    return {
        "arp request": group(EVERYBODY) / who,
        "arp reply": bob() / ARP(op=2, hwsrc=ALICE, psrc="192.0.2.10", hwdst=BOB, pdst="192.0.2.11"),
        "arp gratuitous": group(EVERYBODY) / ARP(op=2, hwsrc=ALICE, psrc="192.0.2.10", pdst="192.0.2.10"),
        "arp padded": group(EVERYBODY) / who / Raw(bytes(18)),
        "broadcast": group(EVERYBODY, type=0x88B5) / Raw(text(100)),
        "dhcp discover": group(EVERYBODY)
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / discovery
        / DHCP(options=[("message-type", "discover"), ("hostname", b"alice"), "end"]),
        "multicast v4": group("01:00:5e:00:00:fb")
        / IP(src="192.0.2.10", dst="224.0.0.251", ttl=255)
        / UDP(sport=5353, dport=5353)
        / DNS(id=0, qd=DNSQR(qname="alice.local")),
        "multicast v6": group("33:33:00:00:00:fb")
        / IPv6(src="fe80::a", dst="ff02::fb", hlim=255)
        / UDP(sport=5353, dport=5353)
        / DNS(id=0, qd=DNSQR(qname="alice.local", qtype="AAAA")),
        "multicast of nobody": group("03:00:00:00:00:01", type=0x88B5) / Raw(text(46)),
        "lldp": group("01:80:c2:00:00:0e", type=0x88CC) / lldp,
        "pause": group("01:80:c2:00:00:01", type=0x8808) / Raw(b"\0\1\0\xff" + bytes(42)),
        "stp": Dot3(src=ALICE, dst="01:80:c2:00:00:00")
        / LLC(dsap=0x42, ssap=0x42, ctrl=3)
        / STP(rootid=0x8000, rootmac=ALICE, bridgeid=0x8000, bridgemac=ALICE),
        "802.3 llc": Dot3(src=ALICE, dst=BOB) / LLC(dsap=0xE0, ssap=0xE0, ctrl=3) / Raw(text(60)),
        "802.3 snap": Dot3(src=ALICE, dst=BOB)
        / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
        / SNAP(OUI=0x00000C, code=0x2000)
        / Raw(text(40)),
        "802.3 length too long": bytes(Ether(src=ALICE, dst=BOB, type=1400)) + text(46),
        "802.3 length too short": bytes(Ether(src=ALICE, dst=BOB, type=8)) + text(46),
        "802.3 length zero": bytes(Ether(src=ALICE, dst=BOB, type=0)) + text(46),
        "ethertype between": bob(type=0x05EE) / Raw(text(46)),
        "ethertype unknown": bob(type=0x88B5) / Raw(text(46)),
        "ethertype ffff": bob(type=0xFFFF) / Raw(text(46)),
        "loopback test": bob(type=0x9000) / Raw(text(46)),
        "pppoe discovery": group(EVERYBODY) / PPPoED(code=0x09, sessionid=0) / Raw(b"\x01\x01\0\0"),
        "pppoe session": bob() / PPPoE(sessionid=0x11) / PPP(proto=0x21) / IP(**IP4) / UDP() / Raw(text(40)),
        "mpls": bob(type=0x8847)
        / MPLS(label=16, s=0, ttl=64)
        / MPLS(label=17, s=1, ttl=64)
        / IP(**IP4)
        / ICMP(),
        "mpls multicast": bob(type=0x8848) / MPLS(label=18, s=1, ttl=64) / IPv6(**IP6) / ICMPv6EchoRequest(),
    }


def vlan_frames() -> dict[str, Any]:
    """Tags of every kind. The names are those of the table in test_replay.py."""
    inner = IP(**IP4) / UDP(sport=1, dport=2) / Raw(text(64))
    return {
        "vlan 7": bob() / Dot1Q(vlan=7) / inner,
        "vlan 7 priority 5": bob() / Dot1Q(vlan=7, prio=5, dei=1) / inner,
        "vlan 7 broadcast": group(EVERYBODY)
        / Dot1Q(vlan=7)
        / ARP(op=1, hwsrc=ALICE, psrc="192.0.2.10", pdst="192.0.2.11"),
        "vlan 7 of 18 bytes": bob() / Dot1Q(vlan=7, type=0x88B5),
        "vlan 7 jumbo": bob() / Dot1Q(vlan=7) / IP(**IP4) / UDP() / Raw(text(9018 - 18 - 28)),
        "vlan 1": bob() / Dot1Q(vlan=1) / inner,
        "vlan 4094": bob() / Dot1Q(vlan=4094) / inner,
        "vlan 4095": bob() / Dot1Q(vlan=4095) / inner,
        "priority tag": bob() / Dot1Q(vlan=0, prio=6) / inner,
        "qinq": bob() / Dot1AD(vlan=100) / Dot1Q(vlan=7) / inner,
        "qinq outer 7": bob() / Dot1AD(vlan=7) / Dot1Q(vlan=9) / inner,
        "two tags of 802.1Q": bob() / Dot1Q(vlan=7) / Dot1Q(vlan=9) / inner,
        "priority tag before a tag": bob() / Dot1Q(vlan=0) / Dot1Q(vlan=7) / inner,
        "tag cut short": bytes(bob(type=0x8100)) + b"\0\7",
        "tag without anything": bytes(bob(type=0x8100)),
    }


def ipv4_frames() -> dict[str, Any]:
    ping = ICMP(id=0x77, seq=1)
    whole = IP(**IP4, id=0x4242) / UDP(sport=9, dport=9) / Raw(text(3000))
    options = [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3), IPOption_Router_Alert()]
    return {
        "icmp echo": v4() / ping / Raw(text(56)),
        "icmp unreachable": v4() / ICMP(type=3, code=3) / IP(**IP4) / UDP(sport=1, dport=2),
        "icmp too big": v4() / ICMP(type=3, code=4, nexthopmtu=1400) / IP(**IP4) / UDP(sport=1, dport=2),
        "fragments v4": [bob() / fragment for fragment in whole.fragment(fragsize=1480)],
        "fragment v4 overlapping": v4(id=9, frag=1, flags="MF", proto=17) / Raw(text(24)),
        "fragment v4 beyond 64 KiB": v4(id=9, frag=8191, proto=17) / Raw(text(100)),
        "ipv4 options": v4(options=options) / ping,
        "ipv4 options timestamp": v4(options=[IPOption_Timestamp()]) / ping,
        "ipv4 longest header": v4(options=[IPOption_RR(pointer=4, routers=["0.0.0.0"] * 9)]) / ping,
        "ipv4 more header than packet": v4(ihl=15) / Raw(text(8)),
        "ipv4 no header": v4(ihl=0) / Raw(text(20)),
        "ipv4 version 7": v4(version=7) / ping,
        "ipv4 length too long": v4(len=1500) / ping,
        "ipv4 length too short": v4(len=10) / ping,
        "ipv4 padded": bytes(v4() / ping).ljust(60, b"\xee"),
        "ipv4 unknown protocol": v4(proto=253) / Raw(text(32)),
        "igmp": group("01:00:5e:00:00:16")
        / IP(src="192.0.2.10", dst="224.0.0.22", ttl=1, proto=2, options=[IPOption_Router_Alert()])
        / Raw(bytes.fromhex("2200f9020000000104000000e00000fb")),
        "bad checksum ip": v4(chksum=0x1234) / ping,
        "bad checksum icmp": v4() / ICMP(chksum=0x1234),
        "esp": v4(proto=50) / Raw(text(80)),
        "ipv4 from nowhere": v4(src="0.0.0.0", dst="127.0.0.1", ttl=0) / ping,
        "ipip": v4() / IP(src="198.51.100.1", dst="198.51.100.2") / ping,
        "6in4": v4() / IPv6(**IP6) / ICMPv6EchoRequest(),
        "gre": v4() / GRE(proto=0x0800) / IP(src="198.51.100.1", dst="198.51.100.2") / ping,
        "gre with key": v4()
        / GRE(key_present=1, seqnum_present=1, key=5, sequence_number=6, proto=0x6558)
        / Ether(src=BOB, dst=ALICE)
        / IP(**IP4)
        / ping,
        "vxlan": v4()
        / UDP(sport=50000, dport=4789)
        / VXLAN(vni=42, flags="Instance")
        / Ether(src=BOB, dst=ALICE)
        / IP(src="198.51.100.1", dst="198.51.100.2")
        / UDP(sport=5, dport=6)
        / Raw(text(30)),
    }


def transport_frames() -> dict[str, Any]:
    """TCP, UDP, SCTP, over both, with and without mistakes."""
    syn = TCP(
        sport=1024,
        dport=80,
        flags="S",
        seq=1,
        options=[("MSS", 1460), ("SAckOK", b""), TSTAMP, ("WScale", 7)],
    )
    sack = TCP(
        sport=1024,
        dport=80,
        flags="A",
        seq=2,
        ack=9,
        options=[("NOP", None), ("SAck", (100, 200, 300, 400)), TSTAMP],
    )
    data = TCP(sport=1024, dport=80, flags="PA", seq=2, ack=9) / Raw(text(1460))
    answer = DNS(
        id=0x99,
        qr=1,
        qd=DNSQR(qname="example.org"),
        an=DNSRR(rrname="example.org", rdata="192.0.2.1", ttl=60),
    )
    return {
        "tcp syn": v4() / syn,
        "tcp sack": v4() / sack,
        "tcp full segment": v4(flags="DF") / data,
        "tcp v6": v6() / data,
        "tcp rst": v4() / TCP(sport=1024, dport=80, flags="RA"),
        "tcp urgent ecn": v4(tos=1) / TCP(sport=1024, dport=80, flags="UAEC", urgptr=5) / Raw(text(10)),
        "tcp bad checksum": v4() / TCP(sport=1, dport=2, chksum=0xBAD0) / Raw(text(20)),
        "tcp bad checksum v6": v6() / TCP(sport=1, dport=2, chksum=0xBAD0) / Raw(text(20)),
        "tcp offset too large": v4() / TCP(sport=1, dport=2, dataofs=15),
        "tcp offset too small": v4() / TCP(sport=1, dport=2, dataofs=2) / Raw(text(20)),
        "tcp cut short": v4(proto=6) / Raw(text(10)),
        "tcp unknown options": v4() / TCP(sport=1, dport=2, options=[(253, b"experiment"), ("EOL", None)]),
        "udp": v4() / UDP(sport=1, dport=2) / Raw(text(99)),
        "udp v6": v6() / UDP(sport=1, dport=2) / Raw(text(99)),
        "udp empty": v4() / UDP(sport=1, dport=2),
        "udp without a checksum": v4() / UDP(sport=1, dport=2, chksum=0) / Raw(text(20)),
        "udp without a checksum v6": bytes(
            v6() / UDP(sport=1, dport=2, chksum=0xFFFF) / Raw(text(20))
        ).replace(b"\0\1\0\2\0\x1c\xff\xff", b"\0\1\0\2\0\x1c\0\0"),
        "udp bad checksum": v4() / UDP(sport=1, dport=2, chksum=0xBAD0) / Raw(text(20)),
        "udp bad checksum v6": v6() / UDP(sport=1, dport=2, chksum=0xBAD0) / Raw(text(20)),
        "udp length too long": v4() / UDP(sport=1, dport=2, len=900) / Raw(text(20)),
        "udp length too short": v4() / UDP(sport=1, dport=2, len=3) / Raw(text(20)),
        "dns query": v4() / UDP(sport=5000, dport=53) / DNS(id=0x99, rd=1, qd=DNSQR(qname="example.org")),
        "dns answer": v4() / UDP(sport=53, dport=5000) / answer,
        "ntp": v4() / UDP(sport=123, dport=123) / NTP(ref=0, orig=0, recv=0, sent=0),
        "sctp init": v4() / SCTP(sport=5, dport=6, tag=0) / SCTPChunkInit(init_tag=1, init_tsn=2),
        "sctp data": v4() / SCTP(sport=5, dport=6, tag=9) / SCTPChunkData(tsn=7, data=text(64)),
        "sctp sack v6": v6() / SCTP(sport=5, dport=6, tag=9) / SCTPChunkSACK(cumul_tsn_ack=7),
        "sctp bad checksum": v4() / SCTP(sport=5, dport=6, chksum=0xBAD00BAD) / SCTPChunkData(data=text(16)),
    }


def ipv6_frames() -> dict[str, Any]:
    ping = ICMPv6EchoRequest(id=0x77, seq=1, data=text(40))
    udp = UDP(sport=1, dport=2) / Raw(text(64))
    node = {"src": "fe80::a", "dst": "fe80::b", "hlim": 255}
    asked = group("33:33:ff:00:00:0b") / IPv6(src="fe80::a", dst="ff02::1:ff00:b", hlim=255)
    router = group("33:33:00:00:00:01") / IPv6(src="fe80::a", dst="ff02::1", hlim=255)
    long_options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(250)), PadN(optdata=bytes(250))])
    return {
        "icmpv6 echo": v6() / ping,
        "icmpv6 too big": v6() / ICMPv6PacketTooBig(mtu=1280) / IPv6(**IP6) / udp,
        "neighbour solicitation": asked / ICMPv6ND_NS(tgt="fe80::b") / ICMPv6NDOptSrcLLAddr(lladdr=ALICE),
        "neighbour advertisement": v6(**node)
        / ICMPv6ND_NA(tgt="fe80::a", R=0, S=1)
        / ICMPv6NDOptDstLLAddr(lladdr=ALICE),
        "router solicitation": group("33:33:00:00:00:02")
        / IPv6(src="fe80::a", dst="ff02::2")
        / ICMPv6ND_RS(),
        "router advertisement": router
        / ICMPv6ND_RA(routerlifetime=1800)
        / ICMPv6NDOptMTU(mtu=9000)
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8::", prefixlen=64),
        "multicast listener query": router / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLQuery(),
        "ipv6 hop by hop": v6() / IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"")]) / udp,
        "ipv6 destination options": v6() / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / udp,
        "ipv6 routing": v6() / IPv6ExtHdrRouting(addresses=["2001:db8::c", "2001:db8::d"]) / udp,
        "ipv6 all headers": v6()
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
        / IPv6ExtHdrRouting(addresses=["2001:db8::c"])
        / IPv6ExtHdrFragment(id=5)
        / udp,
        "ipv6 long options": v6() / long_options / udp,
        "fragments v6": [
            v6() / IPv6ExtHdrFragment(id=0x4242, offset=0, m=1, nh=17) / Raw(text(1448)),
            v6() / IPv6ExtHdrFragment(id=0x4242, offset=181, m=0, nh=17) / Raw(text(600)),
        ],
        "fragment v6 atomic": v6() / IPv6ExtHdrFragment(id=6, offset=0, m=0) / udp,
        "ipv6 no next header": v6(nh=59),
        "ipv6 length too long": v6(plen=1000) / udp,
        "ipv6 length too short": v6(plen=4) / udp,
        "ipv6 jumbogram's zero": v6(plen=0, nh=0) / Raw(b"\x3b\x00\xc2\x04" + bytes(4)),
        "ipv6 header cut short": bytes(v6())[: 14 + 39],
        "ipv6 flow label": v6(fl=0xFFFFF, tc=0xFF) / udp,
        "4in6": v6() / IP(**IP4) / ICMP(),
    }


def sizes() -> dict[str, Any]:
    """From the shortest frame that there is to the longest."""
    head = bytes(bob(type=0x88B5))
    frames: dict[str, Any] = {
        f"{n} bytes": head + text(n - 14) for n in (*range(14, 61), 63, 64, 65, 127, 128, 129)
    }
    frames |= {
        f"{n} bytes": head + text(n - 14) for n in (1513, 1514, 1515, 1518, 2048, 2049, 4096, 4097, 9000)
    }
    frames["9018 bytes"] = head + text(9018 - 14)
    frames["jumbo tcp"] = v4() / TCP(sport=1024, dport=80, flags="A") / Raw(text(8960))
    frames["jumbo udp v6"] = v6() / UDP(sport=1, dport=2) / Raw(text(8952))
    return frames


def build() -> dict[str, bytes]:
    """All frames by name, in the order of the file."""
    frames: dict[str, bytes] = {}
    for part in (link_frames, vlan_frames, ipv4_frames, transport_frames, ipv6_frames, sizes):
        for name, made in part().items():
            several = made if isinstance(made, list) else [made]
            for i, frame in enumerate(several):
                frames[f"{name} {i}" if len(several) > 1 else name] = bytes(frame)
    return frames


# --- the file -------------------------------------------------------------------------------------------


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def pcapng(frames: dict[str, bytes]) -> bytes:
    """A capture of one Ethernet interface, nanoseconds, each frame with its name as the comment."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    interface = struct.pack("<HHI", 1, 0, 0) + _option(9, b"\x09") + _option(0, b"")
    blocks = [_block(0x0A0D0D0A, section), _block(1, interface)]
    for i, (name, frame) in enumerate(frames.items()):
        now = FIRST_NS + i * STEP_NS
        head = struct.pack("<IIIII", 0, now >> 32, now & 0xFFFFFFFF, len(frame), len(frame))
        padded = frame + bytes(-len(frame) % 4)
        blocks.append(_block(6, head + padded + _option(1, name.encode()) + _option(0, b"")))
    return b"".join(blocks)


def load() -> dict[str, bytes]:
    """The frames of the file, by name."""
    data, at, frames = FILE.read_bytes(), 0, {}
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 6:
            length = struct.unpack_from("<I", data, at + 20)[0]
            option = at + 28 + length + -length % 4
            named = struct.unpack_from("<HH", data, option)[1]
            frames[data[option + 4 : option + 4 + named].decode()] = data[at + 28 : at + 28 + length]
        at += size
    return frames


if __name__ == "__main__":
    FILE.write_bytes(pcapng(build()))
    print(f"{FILE}: {len(build())} frames")
