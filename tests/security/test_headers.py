"""virtio-net headers and offloads: what a guest has the NIC do to a frame, and where in it."""

import struct

import pytest

from cdna import abi
from cdna.abi import DescFlag, Fault, VnetFlag, VnetGso
from cdna.base.units import parse_mac
from cdna.guest_driver.vhost_frontend import ALL_PACKED, LEGACY, SPLIT
from cdna.guest_driver.vrings import Buffer
from cdna.guests.hostile import EOP, RX, TX
from cdna.virtio import Feature
from tests.support.attack import INDIRECT, NEXT, PATTERN, WRITE
from tests.support.frames import OUTSIDE, frame
from tests.support.large import KINDS, large, vnet_header
from tests.support.vhost_host import incoming, less, mac, outgoing

BOTH = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
CSUM, TCP4, TCP6 = VnetFlag.VNET_F_NEEDS_CSUM, VnetGso.VNET_GSO_TCPV4, VnetGso.VNET_GSO_TCPV6
UDP, UDP_L4 = VnetGso.VNET_GSO_UDP, VnetGso.VNET_GSO_UDP_L4
ETHERNET, IPV4 = 14, 20
LONG_OPTIONS = b"\x3c\xff" + bytes(2046) + b"\x06\xff" + bytes(2046)  # IPv6's; TCP follows


def header(flags=0, gso=0, hdr_len=0, size=0, start=0, offset=0):
    return struct.pack("<BBHHHHH", flags, gso, hdr_len, size, start, offset, 0)


def segment(scene, kind="tso4", **changed):
    """A large frame of the offender's to the wire, and its virtio-net header, some of it changed."""
    data, offload = large(KINDS[kind], OUTSIDE, mac(scene.offender))
    fields = dict(
        zip(
            ("flags", "gso", "hdr_len", "size", "start", "offset", "_"),
            struct.unpack("<BBHHHHH", vnet_header(KINDS[kind], offload)),
            strict=True,
        )
    )
    del fields["_"]
    return data, header(**{**fields, **changed})


def refused(scene, data, header_):
    """That the NIC drops this frame and counts it, and its guest goes on."""
    before = scene.stats()["tx_drop_invalid"]
    assert scene.bad.send([data], header=header_) == 1
    assert scene.step() == []
    assert scene.stats()["tx_drop_invalid"] == before + 1
    assert scene.fault is None
    assert scene.bad.reclaim() == 1


# --- checksums ----------------------------------------------------------------------------------------------


@BOTH
def test_a_checksum_outside_its_frame(attack, wanted):
    """The sum would be taken of what lies behind the frame, or stored there."""
    scene = attack(wanted)
    (data,) = outgoing(scene.offender, 1)
    for start, offset in (
        *((59, 0), (60, 0), (61, 0), (34, 25), (34, 26)),
        *((14, 0xFFFF), (0xFFFF, 0), (0xFFFF, 0xFFFF), (0xFFF0, 80)),
    ):
        refused(scene, data, header(CSUM, start=start, offset=offset))
    half_a_tag = OUTSIDE + mac(scene.offender) + b"\x81\x00\0\0"
    refused(scene, half_a_tag, header(CSUM, start=0, offset=14))
    scene.unharmed()


def test_a_checksum_over_the_addresses(attack):
    """Stored after the source address was checked, it would make another one of it."""
    scene = attack()
    data = frame(OUTSIDE, mac(scene.offender), 0, 200)
    for start, offset in ((0, 6), (6, 0), (0, 12), (12, 0), (13, 100)):
        refused(scene, data, header(CSUM, start=start, offset=offset))
    scene.unharmed()


def test_an_ip_length_that_is_not_the_frames(attack):
    """The checksum is of the bytes that are there, whatever length the packet has by its own word."""
    scene = attack()
    data, offload = large(KINDS["csum4"], OUTSIDE, mac(scene.offender))
    data, at = bytearray(data[:300]), offload.csum_start + offload.csum_offset
    checksums = set()
    for length in (0, 28, 1000, 65535):
        struct.pack_into("!H", data, ETHERNET + 2, length)
        scene.bad.send([bytes(data)], header=vnet_header(KINDS["csum4"], offload))
        (sent,) = scene.step()
        assert (sent[:at], sent[at + 2 :]) == (data[:at], data[at + 2 :])
        checksums.add(sent[at : at + 2])
    assert len(checksums) == 1
    scene.unharmed()


# --- segmentation -------------------------------------------------------------------------------------------


def test_a_tcp_header_of_another_length(attack):
    """The data offset says where the payload begins: before the header's end, or behind the frame's."""
    scene = attack()
    data, vnet = segment(scene)
    at = ETHERNET + IPV4 + 12
    for doff in (0, 1, 4):
        refused(scene, data[:at] + bytes([doff << 4]) + data[at + 1 :], vnet)
    # A frame that ends within its header is no longer than a segment of it, and sent as one.
    short = data[: ETHERNET + IPV4 + 20]
    for doff in (6, 15):
        sent = short[:at] + bytes([doff << 4]) + short[at + 1 :]
        scene.bad.send([sent], header=segment(scene, size=1)[1])
        (got,) = scene.step()
        assert (len(got), got[:50]) == (54, sent[:50])
    scene.unharmed()


def test_headers_that_end_elsewhere(attack):
    """The checksum's start has to be the transport header's, or lengths come out negative."""
    scene = attack()
    for kind in ("tso4", "tso6", "uso4", "ufo4", "ufo6"):
        for start in (0, 13, 33, 35, 60, 5990, 0xFFFF):
            refused(scene, *segment(scene, kind, start=start))
    # Four bytes late, and yet with a data offset at each of the two places that fits the other.
    data, vnet = segment(scene, start=ETHERNET + IPV4 + 4)
    data = data[:46] + b"\x60" + data[47:50] + b"\x50" + data[51:]
    refused(scene, data, vnet)
    scene.unharmed()


def test_headers_that_fill_the_frame(attack):
    """Nothing is left to send in segments: a count of none, or of all there are."""
    scene = attack()
    data, vnet = segment(scene, size=1)
    data = data[: ETHERNET + IPV4 + 20]
    assert scene.bad.send([data], header=vnet) == 1
    (sent,) = scene.step()  # one packet, as it is, with its checksum
    assert (len(sent), sent[:50]) == (54, data[:50])
    assert scene.fault is None
    scene.unharmed()


def test_headers_longer_than_the_device_keeps(attack):
    """Four kilobytes of IPv6 extension headers are repeated before each segment, or not at all."""
    scene = attack()
    data, vnet = segment(scene, "tso6", start=ETHERNET + 40 + len(LONG_OPTIONS))
    data = data[:20] + b"\x3c" + data[21:54] + LONG_OPTIONS + data[54:]
    refused(scene, data, vnet)
    scene.unharmed()


def test_long_headers_of_a_native_frame(native):
    """As above, in the words of the native ring."""
    scene = native(pages=16)
    mallory = scene.mallory
    data, _ = large(KINDS["tso6"], OUTSIDE, mallory.mac)
    data = data[:20] + b"\x3c" + data[21:54] + LONG_OPTIONS + data[54:]
    start = ETHERNET + 40 + len(LONG_OPTIONS)
    words = int.from_bytes(struct.pack("<HHHH", start, 16, 1000, start + 20), "little")
    mallory.write(data)
    mallory.post(TX, [(words, 0, DescFlag.DESC_F_OFFLOAD), (mallory.maddr(), len(data), EOP)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_OFFLOAD
    scene.unharmed()


def test_segments_of_no_bytes(attack):
    """Each of them brings the end no nearer. IP fragments are multiples of eight, so seven is none."""
    scene = attack()
    for kind in ("tso4", "tso6", "uso4", "uso6", "ufo4", "ufo6"):
        refused(scene, *segment(scene, kind, size=0))
    refused(scene, *segment(scene, "ufo4", size=7))
    refused(scene, *segment(scene, "ufo6", size=7))
    scene.unharmed()


def test_more_segments_than_a_frame_may_have(attack):
    """Five thousand frames of one byte each, for one buffer."""
    scene = attack()
    for kind in ("tso4", "tso6", "uso4", "uso6"):
        refused(scene, *segment(scene, kind, size=1))
        refused(scene, *segment(scene, kind, size=4))
    scene.unharmed()


def test_a_thousand_segments_are_sent_in_turns(attack):
    """The greatest number that there may be: the others' frames pass between them."""
    scene = attack()
    data, vnet = segment(scene, size=5)
    scene.bad.send([data], header=vnet)
    (mine,) = outgoing(scene.honest, 1)
    assert scene.good.send([mine]) == 1
    first = scene.step(1)
    assert 0 < len(first) <= 65
    second = scene.step(1)
    assert mine in first + second
    sent = first + second
    for _ in range(40):
        sent += scene.step(1)
    assert len(sent) == 1001
    scene.unharmed()


def test_a_kind_of_segment_that_the_frame_is_not(attack):
    scene = attack()
    for kind, changed in (
        ("tso4", {"gso": TCP6}),
        ("tso6", {"gso": TCP4}),
        ("uso4", {"gso": TCP4}),
        ("tso4", {"gso": UDP_L4}),
        ("tso4", {"gso": UDP}),
        ("tso4", {"gso": UDP_L4, "offset": 6}),
        ("tso4", {"gso": UDP, "offset": 6}),
        ("tso4", {"gso": 2}),
        ("ufo4", {"gso": 2}),
        ("tso4", {"gso": 0x7F}),
        ("tso4", {"offset": 6}),
        ("uso4", {"offset": 16}),
        ("tso4", {"flags": 0}),
        ("uso4", {"flags": 0}),
    ):
        refused(scene, *segment(scene, kind, **changed))
    sctp, vnet = segment(scene)
    refused(scene, sctp[: ETHERNET + 9] + b"\x84" + sctp[ETHERNET + 10 :], vnet)
    for flag in (b"\x02", b"\x04", b"\x12"):  # SYN, RST
        refused(scene, sctp[:47] + flag + sctp[48:], vnet)
    scene.unharmed()


def test_an_ip_header_of_another_length(attack):
    """Version and header length, as the guest writes them; and a fragment, which has no transport header."""
    scene = attack()
    data, vnet = segment(scene)
    for first in (0x40, 0x44, 0x46, 0x4F, 0x65, 0x55):
        refused(scene, data[:ETHERNET] + bytes([first]) + data[ETHERNET + 1 :], vnet)
    refused(scene, data[: ETHERNET + 6] + b"\x20\x01" + data[ETHERNET + 8 :], vnet)
    for short in (4, 8, 16):  # words that are missing, with the TCP header right behind what there is
        start = ETHERNET + IPV4 - short
        cut = (
            data[:ETHERNET]
            + bytes([0x45 - short // 4])
            + data[ETHERNET + 1 : start]
            + data[ETHERNET + IPV4 :]
        )
        refused(scene, cut, segment(scene, start=start)[1])
    data, vnet = segment(scene, "tso6")
    for length in (0, 31, 255):  # of a destination options header, which is TCP's in truth
        options = data[:20] + b"\x3c" + data[21:54] + bytes([6, length]) + data[56:]
        refused(scene, options, vnet)
    scene.unharmed()


@pytest.mark.parametrize(
    "fields", [(0, 0, 1, 54), (34, 16, 0xFFFF, 54), (34, 16, 100, 0xFF), (34, 16, 100, 53)]
)
def test_an_offload_descriptor_of_the_native_ring(native, fields):
    """As an e1000's context descriptor: checksum start and offset, segment size, length of the headers."""
    scene = native()
    mallory = scene.mallory
    data, _ = large(KINDS["tso4"], OUTSIDE, mallory.mac)
    mallory.write(data)
    words = int.from_bytes(struct.pack("<HHHH", *fields), "little")
    mallory.post(TX, [(words, 0, DescFlag.DESC_F_OFFLOAD), (mallory.maddr(), len(data), EOP)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_OFFLOAD
    scene.unharmed()


# --- lengths ------------------------------------------------------------------------------------------------


@BOTH
def test_a_frame_shorter_than_its_addresses(attack, wanted):
    """What is read of it would be somebody else's."""
    scene = attack(wanted)
    for scene.bad.driver.split_header in (False, True):
        for length in (0, 1, 6, 13):
            refused(scene, bytes(length), b"")
    scene.unharmed()


def test_a_native_frame_shorter_than_its_addresses(native):
    scene = native()
    mallory = scene.mallory
    mallory.post(TX, [(mallory.maddr(), 13, EOP)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_LENGTH
    scene.unharmed()


@BOTH
def test_a_frame_longer_than_any(attack, wanted):
    scene = attack(wanted)
    for scene.bad.driver.split_header in (False, True):
        for length in (abi.Limits.MAX_FRAME + 1, 40000, 70000):
            data = frame(OUTSIDE, mac(scene.offender), 0, length)
            refused(scene, data, b"")
            refused(scene, data, header(CSUM, start=34, offset=16))
    scene.unharmed()


def test_a_native_frame_longer_than_any(native):
    """In one piece, and in pieces that add up."""
    for sizes in ([9019], [9000, 19], [9018, 1], [16, 9003], [9018] * 8):
        scene = native(pages=16)
        mallory, last = scene.mallory, len(sizes) - 1
        pieces = [(mallory.maddr(), size, EOP if i == last else 0) for i, size in enumerate(sizes)]
        mallory.post(TX, pieces)
        assert scene.step() == []
        assert scene.fault == Fault.FAULT_LENGTH
        assert mallory.context.fault.index == min(last, 1)  # no more of it was collected
        scene.unharmed()


@pytest.mark.parametrize(("ring", "pieces"), [(8, 8), (64, 33)])
def test_a_native_frame_without_end(native, ring, pieces):
    """It is never whole: as many pieces as the ring has, or as a frame may have."""
    scene = native(tx_ring=ring)
    scene.mallory.post(TX, [(scene.mallory.maddr(), 60, 0)] * pieces)
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_FRAGMENTS
    scene.unharmed()


@pytest.mark.parametrize("wanted", [SPLIT, LEGACY], ids=["12 bytes", "10 bytes"])
def test_a_header_of_the_other_length(attack, wanted):
    """How long a header is was negotiated; a buffer that ends before it stops its guest."""
    scene = attack(wanted)
    size = scene.bad.driver.header_size
    (sent,) = outgoing(scene.offender, 1)
    at = scene.place()
    scene.memory.write(at, bytes(size) + sent)
    scene.tx.add([Buffer(at, size + len(sent))])
    scene.tx.add([Buffer(at, size - 1)])
    assert scene.step() == [sent]
    assert scene.fault == Fault.FAULT_HEADER
    scene.unharmed()


# --- reception ----------------------------------------------------------------------------------------------


@BOTH
def test_a_frame_larger_than_its_buffer(attack, host, wanted):
    """Without mergeable buffers it goes nowhere; the bytes behind the buffer are another frame's."""
    scene = attack(less(wanted, Feature.VIRTIO_NET_F_MRG_RXBUF), rx_room=1024)
    start = min(scene.memory.offset(int(addr)) for addr in scene.rx.table["addr"])
    before = scene.memory.bytes[start : start + (1 << 17)].copy()
    host.wire.put(incoming(scene.offender, 1, 1514))
    scene.step()
    assert scene.bad.recv() == []
    assert scene.stats()["rx_drop_no_buffer"] == 1
    assert (scene.memory.bytes[start : start + (1 << 17)] == before).all()
    host.wire.put(fits := incoming(scene.offender, 1, 1012))
    scene.step()
    assert scene.bad.recv() == fits
    scene.unharmed()


def test_a_tag_that_makes_a_frame_too_long(native):
    """What the NIC puts into a frame for a trunk counts: four bytes more than the buffer has."""
    scene = native(vlan="trunk")
    mallory, machine = scene.mallory, scene.machine
    sender = machine.attach("sender", vlan=5, tx_ring=8, rx_ring=8)
    mallory.memory[:] = PATTERN
    mallory.post(RX, [(mallory.maddr(), 1514, 0)])
    source = parse_mac(sender.context.mac)
    assert sender.send([frame(mallory.mac, source, 0, 1514)] * 2) == 2
    scene.step()
    assert mallory.context.stats()["rx_drop_no_buffer"] == 2
    assert (mallory.memory == PATTERN).all()
    mallory.post(RX, [(mallory.maddr(2), 1518, 0)])
    sender.send([frame(mallory.mac, source, 0, 1514)])
    scene.step()
    assert mallory.consumer(RX) == 2  # into both
    assert (mallory.memory[1514:8192] == PATTERN).all()
    assert (mallory.memory[8196:] == PATTERN).all()
    scene.unharmed()


@BOTH
def test_nothing_but_the_frame_reaches_a_guest(attack, wanted):
    """No byte of padding, none behind the frame, and every byte of the header is the device's own word."""
    scene = attack(wanted)
    scene.memory.bytes[-8192:] = PATTERN
    scene.rx.table["addr"][:] = scene.memory.regions[0].guest_addr + scene.memory.size - 8192
    for size in (18, 19, 59, 60):
        sent = frame(mac(scene.offender), mac(scene.honest), 0, size)
        scene.good.send([sent])
        scene.step()
        got = scene.memory.bytes[-8192:]
        assert got[: 12 + size].tobytes() == bytes(10) + b"\1\0" + sent
        assert (got[12 + size :] == PATTERN).all()
        (used,) = scene.rx.take()
        assert used.len == 12 + size
    scene.unharmed()


def test_nothing_but_the_frame_reaches_the_wire(attack):
    scene = attack()
    for size in (14, 15, 59):
        frames = [frame(OUTSIDE, mac(scene.offender), 0, n) for n in (1500, size)]
        scene.bad.send(frames)
        assert scene.step() == frames
    scene.unharmed()


def test_a_completion_has_no_byte_of_the_nics(native):
    """What is reserved in it is zero, and its slot was all ones before."""
    scene = native()
    mallory, alice = scene.mallory, scene.neighbours.alice
    mallory.completions.view("u1")[:] = 0xFF
    mallory.post(RX, [(mallory.maddr(), 2048, 0)])
    source = parse_mac(alice.context.mac)
    alice.send([frame(mallory.mac, source, 0, 60)])
    scene.step()
    entry = mallory.completions[0]
    assert (int(entry["len"]), int(entry["vlan"]), int(entry["reserved"])) == (60, 0, 0)
    assert int(entry["flags"]) & ~0xFF == 0
    assert (mallory.completions[1:].view("u1") == 0xFF).all()
    scene.unharmed()


@BOTH
def test_a_second_buffer_that_is_nowhere(attack, host, wanted):
    """The number of buffers goes into the first one, which is written only when all of them are known."""
    scene = attack(wanted, rx_room=512, size=64)
    at = scene.rx.last_used
    first = scene.memory.offset(scene.rx.table["addr"][at])
    before = scene.memory.bytes[first : first + 512].copy()
    scene.rx.table["addr"][(at + 1) % 64] = 1 << 50
    host.wire.put(incoming(scene.offender, 1, 1000))
    scene.step()
    assert scene.fault == Fault.FAULT_MEMORY
    assert (scene.memory.bytes[first : first + 512] == before).all()
    scene.unharmed()


@BOTH
def test_a_frame_for_a_thousand_tiny_buffers(attack, host, wanted):
    """Mergeable buffers of thirteen bytes: more of them than the device keeps for one frame."""
    scene = attack(wanted, size=256)
    scene.rx.table["len"][:] = 13
    before = scene.memory.bytes.copy()
    host.wire.put(incoming(scene.offender, 1, 1514))
    scene.step()
    assert scene.fault is None
    assert scene.stats()["rx_drop_no_buffer"] == 1
    assert (scene.memory.bytes == before).all()
    scene.unharmed()


def test_a_frame_for_tiny_pieces(attack, host):
    """A buffer of two hundred pieces, each a byte, and each a page that the kernel would have to make."""
    scene = attack()
    region = scene.memory.regions[0]
    last = region.guest_addr + region.size
    pieces = [(last - 4096 * (i + 1), 8, WRITE | NEXT, i + 1) for i in range(200)]
    table = scene.table([*pieces, (last - (1 << 20), 2048, WRITE, 0)])
    scene.rx.table[:] = (table, 16 * 201, INDIRECT, 0)
    before = scene.memory.bytes.copy()
    host.wire.put(incoming(scene.offender, 1, 1514))
    scene.step()
    assert scene.fault == Fault.FAULT_CHAIN
    assert (scene.memory.bytes == before).all()
    scene.unharmed()
