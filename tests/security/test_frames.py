"""Frames themselves: whose name they carry, whose network they are of, and to whom they speak."""

import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw
from tests.support.nic_parts import verify_checksum

from cdna import ContextSettings
from cdna.guests.hostile import EOP, TX, Hostile
from cdna.protocol.vhost_user import Request
from cdna.virtio import Feature
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.attack import VirtioAttack
from tests.support.control_driver import ERR
from tests.support.frames import BROADCAST, OUTSIDE, frame, vlan_tag
from tests.support.vhost_host import incoming, mac

PAUSE = bytes.fromhex("0180c2000001")
CONTROL = b"\x88\x08"  # MAC control (IEEE 802.3, clause 31)


def dropped(scene: VirtioAttack, frames, counter):
    """That none of these leaves the offender for anywhere, and each is counted."""
    before = scene.stats()[counter]
    assert scene.bad.send(frames) == len(frames)
    assert scene.step() == []
    assert scene.good.recv() == []
    assert scene.stats()[counter] == before + len(frames)
    scene.bad.reclaim()


def test_frames_in_anothers_name(attack):
    """The neighbour's address, a multicast one, one that differs in a bit, none at all."""
    scene = attack()
    own, other = mac(scene.offender), mac(scene.honest)
    names = [other, BROADCAST, bytes(6), own[:5] + bytes([own[5] ^ 1]), bytes([own[0] ^ 2]) + own[1:]]
    frames = [frame(to, name) for to in (other, BROADCAST, OUTSIDE) for name in names]
    dropped(scene, frames, "tx_drop_spoof")
    scene.unharmed()


def test_an_address_that_somebody_else_has(attack, control):
    """Asked for over the control queue: its frames would come here."""
    scene = attack()
    driver = control(scene)
    for wanted in (mac(scene.honest), BROADCAST, bytes(6), OUTSIDE):
        assert driver.command(NetCtrl.MAC_ADDR_SET, wanted) == ERR
        assert driver.command(NetCtrl.MAC_TABLE_SET, struct.pack("<I6sI", 1, wanted, 0)) == ERR
    assert driver.command(NetCtrl.RX_PROMISC, b"\1") == ERR
    scene.host.wire.put(incoming(scene.honest, 3))
    scene.step()
    assert scene.bad.recv() == []
    assert len(scene.good.recv()) == 3
    scene.unharmed()


def test_an_announcement_in_anothers_name(attack):
    """SEND_RARP has the NIC tell every switch where an address is: it may only be the context's own."""
    scene = attack()
    before = scene.stats()["tx_drop_spoof"]
    for name in (mac(scene.honest), BROADCAST, bytes(6)):
        scene.frontend.send(Request.SEND_RARP, name + bytes(2))
    scene.frontend.sync()
    assert scene.step() == []
    assert scene.stats()["tx_drop_spoof"] == before + 3
    scene.frontend.send(Request.SEND_RARP, mac(scene.offender) + bytes(2))
    scene.frontend.sync()
    assert len(scene.step()) == 1
    assert len(scene.good.recv()) == 1
    scene.unharmed()


def test_tags_of_other_networks(attack):
    """A tag, a priority tag with another behind it, two tags, half a tag: all are dropped and counted.

    Of customers (0x8100), of providers (0x88a8), and of switches older than the standard (0x9100 and on).
    """
    scene = attack()
    own = mac(scene.offender)
    providers = [bytes.fromhex(tag) for tag in ("88a80005", "91000005", "92000005", "93000005", "91000000")]
    for to in (mac(scene.honest), OUTSIDE, BROADCAST):
        frames = [
            to + own + b"\x81\x00\x00\x00",
            frame(to, own, 0, 80, vlan_tag(5)),
            frame(to, own, 1, 80, vlan_tag(4095)),
            *(frame(to, own, 2, 80, tag) for tag in providers),
            frame(to, own, 3, 80, vlan_tag(0) + vlan_tag(5)),
            *(frame(to, own, 4, 80, vlan_tag(0) + tag) for tag in providers),
            frame(to, own, 5, 80, vlan_tag(5) + vlan_tag(6)),
            to + own + b"\x81\x00\x00",
        ]
        dropped(scene, frames, "tx_drop_vlan")
    scene.unharmed()


def test_one_network_does_not_reach_the_other(host):
    """Two access ports of two VLANs; each sends to the other's address, and to everybody."""
    guests = []
    for number, vlan in ((10, 5), (11, 6)):
        settings = ContextSettings(protection="table", mac=f"02:00:00:00:00:{number:02x}", vlan=vlan)
        guests.append(host.add(f"vlan{vlan}", number, settings=settings))
    five, six = (host.attach(guest) for guest in guests)
    for source, driver in ((guests[0], five), (guests[1], six)):
        other = guests[1] if source is guests[0] else guests[0]
        assert driver.send([frame(mac(other), mac(source)), frame(BROADCAST, mac(source))]) == 2
    host.step()
    assert five.recv() == six.recv() == []
    tags = {data[6:12]: data[12:16] for data in host.wire.get()}
    assert tags == {mac(guests[0]): vlan_tag(5), mac(guests[1]): vlan_tag(6)}


def test_pause_from_a_guest(attack):
    """It would stop the switch at the wire's other end from sending, to all guests."""
    scene = attack()
    own = mac(scene.offender)
    for command in (b"\x00\x01\xff\xff", b"\x01\x01\x00\xff" + b"\xff" * 16, b"\xff\xff"):
        targets = (PAUSE, OUTSIDE, BROADCAST, mac(scene.honest))
        frames = [(to + own + CONTROL + command).ljust(60, b"\0") for to in targets]
        dropped(scene, frames, "tx_drop_spoof")
    scene.unharmed()


def test_frames_that_are_no_pause(attack):
    """Other types to the same group, and groups beside it, are a guest's to send."""
    scene = attack()
    own = mac(scene.offender)
    groups = [PAUSE, *map(bytes.fromhex, ("0180c2000010", "0180c2010001", "01005e000001", "333300000001"))]
    frames = [
        (group + own + kind).ljust(60, b"\0") for group in groups for kind in (b"\x88\xb5", b"\x08\x88")
    ]
    assert scene.bad.send(frames) == len(frames)
    assert scene.step() == frames
    scene.unharmed()


@pytest.mark.parametrize("trusted", [False, True])
def test_pause_from_a_native_guest(native, trusted):
    """A guest that may send in any name, as a bridge, may also speak for the link."""
    scene = native(anti_spoof=not trusted)
    mallory: Hostile = scene.mallory
    mallory.write((PAUSE + mallory.mac + CONTROL + b"\x00\x01\xff\xff").ljust(60, b"\0"))
    mallory.post(TX, [(mallory.maddr(), 60, EOP)])
    assert len(scene.step()) == trusted
    assert mallory.context.stats()["tx_drop_spoof"] == (not trusted)
    scene.unharmed()


# --- what comes from the wire -------------------------------------------------------------------------------


def lies(ethernet, packet, ip, transport):
    """Frames that are cut, or say that they are longer, or that their headers are. `ip`: IPv4 or IPv6."""
    whole = ethernet + packet
    at = 14 + transport
    yield from (whole[:cut] for cut in (34, at, at + 1, at + 7, at + 8, at + 19, len(whole) - 1))
    length = slice(16, 18) if ip == 4 else slice(18, 20)
    for value in (0, 1, transport - 1, len(packet) + 1, 65535):
        lie = bytearray(whole)
        lie[length] = value.to_bytes(2, "big")
        yield bytes(lie)
    for value in (0x40, 0x44, 0x4F) if ip == 4 else (0x50, 0xF0):
        yield whole[:14] + bytes([value]) + whole[15:]
    if whole[23 if ip == 4 else 20] == 17:
        for value in (0, 1, 7, len(packet), 65535):
            lie = bytearray(whole)
            lie[at + 4 : at + 6] = value.to_bytes(2, "big")
            yield bytes(lie)


@pytest.mark.parametrize("ip", [4, 6])
def test_packets_that_lie_about_their_lengths(attack, host, control, ip):
    """The NIC looks into frames for their flow and their checksum; one that lies arrives as it came."""
    scene = attack(pairs=2)
    driver = control(scene)
    rss = struct.pack("<IHH2HHB", 0x3F, 1, 0, 0, 1, 2, 40) + bytes(range(40))
    assert scene.frontend.has(Feature.VIRTIO_NET_F_RSS)
    assert driver.command(NetCtrl.MQ_RSS_CONFIG, rss) == 0
    network = IP(src="10.0.0.1", dst="10.0.0.2") if ip == 4 else IPv6(src="fd00::1", dst="fd00::2")
    stacks = [network / UDP() / Raw(b"12345678" * 8), network / TCP(flags="PA") / Raw(b"12345678" * 8)]
    if ip == 6:
        stacks.append(network / IPv6ExtHdrDestOpt() / UDP() / Raw(b"12345678" * 8))
    ethernet = mac(scene.offender) + OUTSIDE + (b"\x08\x00" if ip == 4 else b"\x86\xdd")

    def received(data):
        """Whether its checksum is right; it has arrived, with no word of that in its header."""
        host.wire.put([data])
        scene.step()
        assert scene.bad.recv() == [data]
        assert scene.bad.driver.headers == [bytes(10) + b"\1\0"]
        return verify_checksum(data)

    for stack in stacks:
        packet = bytes(stack)
        transport = len(packet) - 64 - (20 if TCP in stack else 8)
        assert received(ethernet + packet)
        for lie in lies(ethernet, packet, ip, transport):
            assert not received(lie)
    if ip == 6:
        extension = bytearray(ethernet + bytes(stacks[2]))
        for value in (8, 31, 255):
            extension[14 + 40 + 1] = value
            assert not received(bytes(extension))
    scene.unharmed()
