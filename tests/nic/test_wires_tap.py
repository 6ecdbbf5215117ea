"""The tap wire, in a network namespace of its own: real frames both ways."""

import os
import select
import socket
import threading

import pytest

import cdna
from cdna.errors import ConfigError, ResourceError
from cdna.nic.tap import open_tap
from cdna.nic.tap_wire import TapWire
from cdna.nic.wire import Offload, finish_offload
from tests.support.namespace import (
    ETHERTYPE,
    VNET,
    comes_and_goes,
    delete_link,
    host_end,
    in_namespace,
    make_tap,
    make_veth,
    said,
    set_link,
    until,
)
from tests.support.tcp import HERE, IPV4, IPV6, VNET_GSO, large_segment, payload

TAP = "cdna-test0"

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")


def numbered(n, size=100):
    header = b"\xff" * 6 + b"\x02\0\0\0\0\x09" + ETHERTYPE.to_bytes(2, "big")
    return [header + i.to_bytes(4, "big") * ((size - 14) // 4) for i in range(n)]


def ours(frames):
    """The frames of the test's own ethertype; the kernel sends others (neighbour discovery)."""
    return [frame for frame in frames if frame[12:14] == ETHERTYPE.to_bytes(2, "big")]


def receive_ours(wire, n):
    frames = []
    while len(frames) < n:
        frames += ours(wire.receive(64))
    return frames


def send_until_one_arrives(host, wire):
    """The kernel follows a device's carrier a moment later, and drops what a socket sends before."""
    probe = numbered(1, 60)[0]
    until(lambda: host.send(probe) and probe in ours(wire.receive(64)))
    until(lambda: ours(wire.receive(64)) == [])


def receive_large(wire, n):
    frames = []
    while len(frames) < n:
        frames += [pair for pair in wire.receive_offload(64) if pair[0][6:12] == HERE]
    return frames


# --- frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vnet", [False, True])
@pytest.mark.parametrize("size", [60, 1514])
def test_frames_go_both_ways(size, vnet):
    def both_ways():
        frames = numbered(50, size)
        with TapWire(TAP, vnet_header=vnet) as wire, host_end(TAP) as host:
            assert bool(wire.offloads) == vnet
            assert wire.transmit(frames) == 50
            assert [host.recv(2000) for _ in frames] == frames
            for data in frames:
                host.send(data)
            assert receive_ours(wire, 50) == frames
            assert wire.stats()["tx_frames"] == 50
            assert wire.stats()["tx_lost"] == 0

    in_namespace(both_ways)


@pytest.mark.parametrize("version", [IPV4, IPV6])
@pytest.mark.parametrize(("length", "mss"), [(65000, 1400), (100, 0)])
def test_what_is_left_to_do_passes_as_it_is(version, length, mss):
    """A large segment, and one whose checksum is due, reach the host and the wire with nothing done."""
    data, offload = large_segment(length, mss, version)

    def both_ways():
        with TapWire(TAP) as wire, host_end(TAP, version, vnet=True) as host:
            assert wire.transmit_offload([(data, offload)]) == 1
            got = host.recv(70000)
            flags, kind, _, size, start, offset = VNET.unpack_from(got)
            assert got[VNET.size :] == data
            assert (flags, start, offset) == (1, offload.csum_start, 16)
            assert (kind, size) == ((VNET_GSO[version], mss) if mss else (0, 0))
            # The header's length is a hint: the wire looks for itself.
            host.send(VNET.pack(flags, kind, offload.csum_start + 18, size, start, offset) + data)
            assert receive_large(wire, 1) == [(data, offload)]

    in_namespace(both_ways)


def test_the_host_cuts_large_segments_for_a_wire_that_takes_none():
    data, offload = large_segment(5000, 1400)

    def cut():
        with TapWire(TAP, vnet_header=False) as wire, host_end(TAP, IPV4, vnet=True) as host:
            with pytest.raises(ConfigError, match=f"{TAP} takes none"):
                wire.transmit_offload([(data, offload)])
            host.send(VNET.pack(1, 1, offload.hdr_len, 1400, offload.csum_start, 16) + data)
            segments = receive_large(wire, 4)
            assert [offload for _, offload in segments] == [None] * 4
            assert b"".join(payload(segment, offload) for segment, _ in segments) == data[54:]

    in_namespace(cut)


def test_a_plain_receive_finishes_what_the_host_left_to_do():
    data, offload = large_segment(5000, 1400)

    def finish():
        with TapWire(TAP) as wire, host_end(TAP, IPV4, vnet=True) as host:
            host.send(VNET.pack(1, 1, offload.hdr_len, 1400, offload.csum_start, 16) + data)
            segments = []
            while len(segments) < 4:
                segments += [segment for segment in wire.receive() if segment[6:12] == HERE]
            assert segments == finish_offload(data, offload)
            assert b"".join(payload(segment, offload) for segment in segments) == data[54:]

    in_namespace(finish)


def test_an_offload_that_does_not_fit_its_frame_is_told():
    data, offload = large_segment(5000, 1400)

    def refuse():
        with TapWire(TAP) as wire:
            with pytest.raises(ConfigError, match=r"frame 1: .* does not fit"):
                wire.transmit_offload([(data, offload), (data, Offload(34, 16, 1400, 5000))])
            assert wire.stats()["tx_frames"] == 0

    in_namespace(refuse)


def test_frames_of_one_flow_keep_their_order_over_several_queues():
    flows = [[large_segment(100 + i, 0, flow=flow) for i in range(40)] for flow in range(8)]
    frames = [flow[i] for i in range(40) for flow in flows]

    def in_order():
        with (
            TapWire(TAP, queues=4) as wire,
            host_end(TAP, IPV4) as host,
            host_end(TAP, IPV4, vnet=True) as out,
        ):
            assert wire.transmit_offload(frames) == len(frames)
            got = [host.recv(2000) for _ in frames]
            for flow in range(8):
                port = (1000 + flow).to_bytes(2, "big")
                assert [len(data) for data in got if data[34:36] == port] == [154 + i for i in range(40)]
            for data, offload in frames:
                out.send(VNET.pack(1, 0, 0, 0, offload.csum_start, 16) + data)
            back = receive_large(wire, len(frames))
            assert sorted(back) == sorted(frames)
            assert wire.stats()["rx_bad_offload"] == 0

    in_namespace(in_order)


def test_the_host_is_asked_for_frames_that_a_guests_buffer_holds():
    def limit():
        from pyroute2 import IPRoute

        with TapWire(TAP), IPRoute() as netlink:
            assert netlink.get_links(ifname=TAP)[0].get_attr("IFLA_GSO_MAX_SIZE") + 4 <= 65536
            assert netlink.get_links(ifname=TAP)[0].get_attr("IFLA_GSO_MAX_SIZE") < 65472

    in_namespace(limit)


def test_a_wire_can_be_waited_for():
    def wait():
        with TapWire(TAP, queues=2) as wire, host_end(TAP) as host:
            (fd,) = wire.wait_fds
            assert not wire.needs_poll
            host.send(numbered(1)[0])
            assert select.select([fd], [], [], 20)[0]
            receive_ours(wire, 1)
            until(lambda: wire.receive() == [] and not select.select([fd], [], [], 0)[0])
        assert wire.wait_fds == []

    in_namespace(wait)


# --- a device that comes and goes -------------------------------------------------------------------------


def test_a_closed_wire_gives_its_device_back():
    def close():
        wire = TapWire(TAP)
        assert TAP in dict(socket.if_nameindex()).values()
        assert wire.fileno() >= 0
        wire.close()
        wire.close()
        assert wire.fileno() == -1
        assert TAP not in dict(socket.if_nameindex()).values()
        assert wire.transmit(numbered(2)) == 2
        assert wire.stats()["tx_lost"] == 2

    in_namespace(close)


def test_a_wire_that_nobody_holds_ends_its_thread():
    def forget():
        before = set(threading.enumerate())
        TapWire(TAP)
        until(lambda: set(threading.enumerate()) <= before)
        assert TAP not in dict(socket.if_nameindex()).values()

    in_namespace(forget)


@pytest.mark.parametrize("queues", [1, 2])
def test_the_link_goes_down_with_the_device_and_comes_back_with_another(caplog, queues):
    caplog.set_level("INFO", "cdna.nic")

    def vanish():
        with TapWire(TAP, queues=queues) as wire:
            fds = wire.wait_fds
            delete_link(TAP)
            until(lambda: not wire.link and said(caplog))
            assert wire.transmit(numbered(3)) == 3
            assert wire.stats()["tx_lost"] == 3
            until(lambda: wire.receive() == [] and not select.select(fds, [], [], 0)[0])
            assert said(caplog) == [f"{TAP}: the device is gone: link down"]

            make_tap(TAP, multi_queue=queues > 1)
            until(lambda: wire.link)
            assert said(caplog)[1:] == [f"{TAP}: the device is back: link up"]
            assert wire.wait_fds == fds
            assert select.select(fds, [], [], 20)[0]  # so that a loop that sleeps sees the link
            with host_end(TAP) as host:
                assert wire.transmit(numbered(5)) == 5
                assert [host.recv(2000) for _ in range(5)] == numbered(5)
                send_until_one_arrives(host, wire)
                for data in numbered(5):
                    host.send(data)
                assert receive_ours(wire, 5) == numbered(5)
        delete_link(TAP)

    in_namespace(vanish)


def test_the_engine_runs_on_through_all_of_it():
    """A NIC in a thread of its own sends all the while: the frames are lost, and then they are not."""

    def run():
        with cdna.Machine(wire=TapWire(TAP)) as machine:
            guest = machine.attach("alice")
            comes_and_goes(machine, guest, TAP, TimeoutError, lambda: delete_link(TAP), lambda: make_tap(TAP))
        delete_link(TAP)

    in_namespace(run)


def test_a_device_that_is_down_takes_nothing_and_the_loss_is_counted(caplog):
    def down():
        with TapWire(TAP) as wire:
            set_link(TAP, up=False)
            until(lambda: not wire.link and said(caplog))
            assert said(caplog) == [f"{TAP}: the device is down: link down"]
            assert wire.transmit(numbered(3)) == 3
            assert wire.stats()["tx_lost"] == 3
            set_link(TAP, up=True)
            until(lambda: wire.link)
            with host_end(TAP) as host:
                wire.transmit(numbered(1))
                assert [host.recv(2000)] == numbered(1)

    in_namespace(down)


def test_a_pulled_cable_stays_pulled_whatever_the_device_does():
    def pull():
        with TapWire(TAP) as wire:
            wire.link = False
            set_link(TAP, up=False)
            set_link(TAP, up=True)
            assert wire.look()
            assert not wire.link
            assert wire.transmit(numbered(2)) == 2
            assert wire.stats()["tx_lost"] == 2
            wire.link = True
            assert wire.link

    in_namespace(pull)


def test_the_host_sees_that_the_cable_is_pulled():
    def pull():
        from pyroute2 import IPRoute

        def carrier():
            with IPRoute() as netlink:
                return netlink.get_links(ifname=TAP)[0].get_attr("IFLA_CARRIER")

        with TapWire(TAP) as wire:
            assert carrier() == 1
            wire.link = False
            assert carrier() == 0
            wire.link = True
            assert carrier() == 1

    in_namespace(pull)


def test_another_device_of_the_name_is_no_replacement(caplog):
    def replace():
        with TapWire(TAP) as wire:
            delete_link(TAP)
            until(lambda: not wire.look())
            make_veth(TAP, "cdna-test1")
            assert not wire.look()
            assert not wire.link
            assert said(caplog) == [f"{TAP}: the device is gone: link down"]
            delete_link(TAP)
            make_tap(TAP)
            until(lambda: wire.link)
        delete_link(TAP)

    in_namespace(replace)


# --- bad input --------------------------------------------------------------------------------------------


def test_a_tap_that_is_taken():
    def twice():
        with TapWire(TAP), pytest.raises(ResourceError, match="another program holds it"):
            TapWire(TAP)

    in_namespace(twice)


def test_a_name_that_is_no_taps():
    def lo():
        with pytest.raises(ResourceError, match="lo exists and is no tap"):
            TapWire("lo")

    in_namespace(lo)


def test_queues_that_the_tap_has_not():
    def mismatch():
        with TapWire(TAP), pytest.raises(ResourceError, match="single queue; give queues=1"):
            TapWire(TAP, queues=2)
        with (
            TapWire(TAP, queues=2),
            pytest.raises(ResourceError, match="several queues; give queues=2 or more"),
        ):
            TapWire(TAP)
        with pytest.raises(ConfigError, match="queues of a tap 257: give 1 to 256"):
            TapWire(TAP, queues=257)
        assert TAP not in dict(socket.if_nameindex()).values()

    in_namespace(mismatch)


@pytest.mark.parametrize("vnet", [False, True])
def test_a_tap_of_whose_queues_some_are_taken(vnet):
    def shared():
        with (
            TapWire(TAP, queues=2, vnet_header=vnet),
            pytest.raises(ResourceError, match="holds queues of it"),
        ):
            TapWire(TAP, queues=2)

    in_namespace(shared)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights, so needs to have them")
def test_without_rights_it_is_told_what_is_needed():
    def unprivileged():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
                    status = 0  # refused at the door, which says so as well
                open_tap(TAP)
            except ResourceError as error:
                text = str(error)
                status = 0 if "CAP_NET_ADMIN" in text or "/dev/net/tun: Permission denied" in text else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    in_namespace(unprivileged)


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a b", "a/b", "tap%d", ".", "..", "a\0b"])
def test_a_name_that_cannot_be(name):
    with pytest.raises(ConfigError, match="tap name"):
        TapWire(name)
