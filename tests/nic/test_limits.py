"""Limits of what a guest may say to the NIC that no other test reaches."""

from __future__ import annotations

import socket
import struct

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from tests.support.nic_parts import transport_header

from cdna.abi import ContextState, DescFlag, Fault, Limits, Refusal
from cdna.guests.hostile import EOP, PRODUCER, TX, Hostile
from cdna.machine import Machine
from cdna.protocol.hypercall import Hypercall, Malformed
from cdna.vmm.hypercall_buffer import HypercallBuffer
from tests.support.frames import Neighbours, mac

VNET = 12  # bytes of the header in front of a frame
TAG = b"\x81\x00"


@pytest.fixture
def machine():
    machine = Machine(8 << 20, wire="loopback", contexts=4)
    yield machine
    machine.close()


def stopped_by(hostile: Hostile, *descriptors: tuple[int, int, int]) -> Fault:
    hostile.post(TX, descriptors)
    hostile.ring_doorbell(PRODUCER[TX], len(descriptors))
    hostile.machine.step(2)
    assert hostile.context.state == ContextState.CONTEXT_FAULTED
    assert hostile.context.fault is not None
    return hostile.context.fault.reason


def test_a_frame_has_room_for_both_of_its_headers(machine):
    hostile = Hostile(machine, vnet_header=True)
    assert stopped_by(hostile, (hostile.maddr(), VNET + 13, EOP)) == Fault.FAULT_LENGTH


def test_fragments_without_work_to_do_are_no_longer_than_a_frame(machine):
    hostile = Hostile(machine, vnet_header=True, pages=16)
    parts = [(hostile.maddr(0), 4096, 0), (hostile.maddr(1), 4096, 0), (hostile.maddr(2), 4096, EOP)]
    assert stopped_by(hostile, *parts) == Fault.FAULT_LENGTH


def test_an_access_port_sends_no_tag_behind_a_priority_tag(machine):
    """The outer tag has VLAN 0, which is no VLAN; the inner one would be the frame's on the wire."""
    neighbours = Neighbours(machine)
    hostile = Hostile(machine)
    tags = TAG + b"\0\0" + TAG + b"\0\5" + b"\x88\xb5"
    data = (mac(neighbours.alice) + hostile.mac + tags).ljust(64, b"\0")
    hostile.post(TX, [(hostile.write(data), len(data), EOP)])
    hostile.ring_doorbell(PRODUCER[TX], 1)
    machine.step(2)
    assert hostile.context.stats()["tx_drop_vlan"] == 1
    assert neighbours.alice.recv() == []


def test_a_buffer_to_be_given_back_is_of_a_context_that_is_the_callers(machine):
    """HYPERCALL_REAP, from a connection whose context has been given to another domain meanwhile."""
    hostile = Hostile(machine)
    guest, vmm = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with guest, vmm:
        buffer = HypercallBuffer(machine.vmm.tables)
        own = hostile.guest.domain
        for domain, status in ((own, 0), (own + 1, Refusal.REFUSED_CONTEXT)):
            guest.send(struct.pack("<HHIQ", Hypercall.HYPERCALL_REAP, 0, 0, 0))
            buffer.serve(vmm.fileno(), domain, hostile.context.index)
            assert struct.unpack_from("<i", guest.recv(16)) == (status,)


def test_an_io_address_is_within_the_table(machine):
    """Far behind its end, where nothing is that an entry could be read from."""
    hostile = Hostile(machine, protection="iommu:direct-map")
    assert stopped_by(hostile, (1 << 52, 60, EOP)) == Fault.FAULT_TRANSLATION


def test_a_segment_is_no_longer_than_a_frame(machine):
    """Also where the frame itself is shorter than one segment of it."""
    hostile = Hostile(machine)
    head = Ether(dst="02:ff:ff:ff:ff:01", src=hostile.context.mac) / IP(src="10.0.0.1", dst="10.0.0.2")
    data = bytes(head / TCP(sport=1, dport=2, flags="A") / Raw(bytes(3000)))
    hostile.write(data)
    work = int.from_bytes(struct.pack("<4H", 34, 16, Limits.MAX_FRAME + 1, 54), "little")
    parts = [(work, 0, DescFlag.DESC_F_OFFLOAD), (hostile.maddr(), len(data), EOP)]
    assert stopped_by(hostile, *parts) == Fault.FAULT_OFFLOAD


NEEDS_CSUM = 1
TCPV4, UDP_L4 = 1, 5
WORK = {  # flags, type, size of segments, csum_start, csum_offset, bytes of the frame
    "a large frame with its checksum done that is not UDP": (0, TCPV4, 5000, 34, 16, 200),
    "a type that there is not": (NEEDS_CSUM, 2, 5000, 34, 6, 200),
    "segments of nothing": (NEEDS_CSUM, TCPV4, 0, 34, 16, 200),
    "a checksum behind what is looked at": (NEEDS_CSUM, UDP_L4, 4000, 2400, 6, 3000),
    "a frame too long to be sent whole": (NEEDS_CSUM, 0, 0, 34, 16, Limits.MAX_FRAME + 100),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_work_that_cannot_be_done(machine, work):
    flags, kind, size, start, offset, length = work
    hostile = Hostile(machine, vnet_header=True)
    head = Ether(dst="02:ff:ff:ff:ff:01", src=hostile.context.mac) / IP(src="10.0.0.1", dst="10.0.0.2")
    data = bytes(head / TCP(sport=1, dport=2, flags="A")).ljust(length, b"\0")
    data = struct.pack("<BBHHHHH", flags, kind, 0, size, start, offset, 0) + data
    hostile.write(data)
    pages = range(-(-len(data) // 4096))
    parts = [(hostile.maddr(page), min(4096, len(data) - 4096 * page), 0) for page in pages]
    parts[-1] = (*parts[-1][:2], EOP)
    assert stopped_by(hostile, *parts) == Fault.FAULT_OFFLOAD


def test_a_transport_header_is_found_in_whole_packets_alone():
    ether = bytes(12)
    ipv4 = ether + b"\x08\0" + bytes([0x45, 0]) + bytes(7) + bytes([6]) + bytes(30)
    ipv6 = ether + b"\x86\xdd" + b"\x60" + bytes(5) + bytes([6]) + bytes(53)
    assert transport_header(ipv4) == 34
    assert transport_header(ipv6) == 54
    assert transport_header(ipv4[:14] + b"\x55" + ipv4[15:]) is None, "another version"
    assert transport_header(ipv6[:14] + b"\x50" + ipv6[15:]) is None, "another version"
    assert transport_header(ipv4[:14] + b"\x4f" + ipv4[15:]) is None, "options that are not there"


HEAD = struct.Struct("<HHIQ")
MESSAGES = {  # of hypercalls, and what is said of them
    "the header alone has": b"\1",
    "unknown hypercall": HEAD.pack(6, 0, 0, 0),
    "MAP with reserved fields": HEAD.pack(Hypercall.HYPERCALL_MAP, 1, 0, 0),
    "ENQUEUE with reserved fields": HEAD.pack(Hypercall.HYPERCALL_ENQUEUE, 0, 0, 1),
    "with 257 entries: at most 256": HEAD.pack(Hypercall.HYPERCALL_ENQUEUE, 0, 257, 0) + bytes(16 * 257),
    "with 1 entries: at most 0": HEAD.pack(Hypercall.HYPERCALL_REAP, 0, 1, 0),
    "with 2 entries in 32 bytes": HEAD.pack(Hypercall.HYPERCALL_ENQUEUE, 0, 2, 0) + bytes(16),
}


@pytest.mark.parametrize("told", MESSAGES)
def test_a_message_that_no_driver_would_send(machine, told):
    hostile = Hostile(machine)
    guest, vmm = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with guest, vmm:
        guest.send(MESSAGES[told])
        with pytest.raises(Malformed, match=told):
            HypercallBuffer(machine.vmm.tables).serve(
                vmm.fileno(), hostile.guest.domain, hostile.context.index
            )


def test_an_io_page_that_is_unmapped_is_within_the_table(machine):
    hostile = Hostile(machine, protection="iommu:single-use")
    assert hostile.iommu_unmap([1 << 31]) == Refusal.REFUSED_MAPPED
