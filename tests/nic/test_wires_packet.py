"""The packet wire on one end of a veth, in a network namespace of its own."""

import contextlib
import os
import select
import socket
import threading

import pytest

import cdna
from cdna.errors import ConfigError, ResourceError
from cdna.nic.packet_wire import PacketWire
from cdna.nic.wires import make_wire
from tests.support.frames import OUTSIDE, frame, mac, receive_all
from tests.support.namespace import (
    ETH_P_ALL,
    VNET,
    comes_and_goes,
    delete_link,
    host_end,
    in_namespace,
    make_veth,
    said,
    set_link,
    until,
)
from tests.support.tcp import HERE, IPV4, IPV6, VNET_GSO, large_segment

WIRE, FAR = "cdna-test0", "cdna-test1"
RING = 480  # frames in the receive ring, or fewer


@contextlib.contextmanager
def packet_wire(**settings):
    """A wire on one end of a pair of devices, and a raw socket on the other."""
    make_veth(WIRE, FAR)
    with PacketWire(WIRE, **settings) as wire, host_end(FAR) as far:
        yield wire, far


def numbered(n, size=100):
    return [frame(b"\xff" * 6, OUTSIDE, i, size) for i in range(n)]


def is_ours(data):
    return data[6:12] in (OUTSIDE, HERE)


def receive_ours(wire, n):
    """Frames of the test's own; the kernel sends some of its own (neighbour discovery)."""
    frames = []
    while len(frames) < n:
        frames += [data for data in wire.receive(64) if is_ours(data)]
    return frames


def send_all(wire, frames):
    while frames:
        frames = frames[wire.transmit(frames) :]


# --- frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [60, 1514])
def test_frames_go_both_ways(size):
    def both_ways():
        frames = numbered(400, size)
        with packet_wire() as (wire, far):
            send_all(wire, frames)
            assert [far.recv(2000) for _ in frames] == frames
            for data in frames:
                far.send(data)
            assert receive_ours(wire, 400) == frames
            stats = wire.stats()
            assert stats["tx_frames"] == 400
            assert stats["tx_lost"] == stats["rx_drop_ring"] == 0

    in_namespace(both_ways)


def test_frames_stay_as_they_were_sent_however_late_they_are_read():
    """The transmit ring is used many times over while all the frames wait in the receiver's socket."""

    def late():
        frames = numbered(3000, 1000)
        with packet_wire() as (wire, far):
            send_all(wire, frames)
            assert [far.recv(2000) for _ in frames] == frames

    in_namespace(late)


@pytest.mark.parametrize("version", [IPV4, IPV6])
@pytest.mark.parametrize(("length", "mss"), [(65000, 1400), (100, 0)])
def test_what_is_left_to_do_passes_as_it_is(version, length, mss):
    data, offload = large_segment(length, mss, version)

    def both_ways():
        with packet_wire() as (wire, _), host_end(FAR, version, vnet=True) as far:
            assert wire.transmit_offload([(data, offload)] * 3) == 3
            for _ in range(3):
                got = far.recv(70000)
                assert got[VNET.size :] == data
                flags, kind, _, size, start, offset = VNET.unpack_from(got)
                assert (flags, start, offset) == (1, offload.csum_start, 16)
                assert (kind, size) == ((VNET_GSO[version], mss) if mss else (0, 0))
            far.send(got)
            back = []
            while not back:
                back = [pair for pair in wire.receive_offload() if is_ours(pair[0])]
            assert back == [(data, offload)]

    in_namespace(both_ways)


def test_large_and_small_frames_keep_their_order():
    large, offload = large_segment(20000, 1400)
    small = [large_segment(100 + i, 0) for i in range(20)]
    frames = [pair for i in range(20) for pair in ((large, offload), small[i])]

    def in_order():
        with packet_wire() as (wire, _), host_end(FAR, IPV4, vnet=True) as far:
            assert wire.transmit_offload(frames) == len(frames)
            assert [far.recv(70000)[VNET.size :] for _ in frames] == [data for data, _ in frames]

    in_namespace(in_order)


@pytest.mark.parametrize("tag", ["81000007", "8100e000", "88a80005", "8100000781000008", "88a8000581000007"])
def test_tags_that_the_kernel_has_taken_off_are_put_back(tag):
    def tagged():
        with packet_wire() as (wire, far):
            frames = [data[:12] + bytes.fromhex(tag) + data[12:] for data in numbered(5)]
            for data in frames:
                far.send(data)
            assert receive_ours(wire, 5) == frames

    in_namespace(tagged)


def test_the_offsets_of_a_tagged_frame_count_the_tag():
    data, offload = large_segment(9000, 1400)

    def tagged():
        with packet_wire() as (wire, _), host_end(FAR, ETH_P_ALL, vnet=True) as far:
            with_tag = data[:12] + bytes.fromhex("81000007") + data[12:]
            start = offload.csum_start + 4
            far.send(VNET.pack(1, 1, start + 20, 1400, start, 16) + with_tag)
            back = []
            while not back:
                back = [pair for pair in wire.receive_offload() if is_ours(pair[0])]
            assert back == [(with_tag, offload._replace(csum_start=start, hdr_len=start + 20))]

    in_namespace(tagged)


def test_a_frame_that_comes_has_the_time_when_it_came():
    def stamped():
        import time

        with packet_wire() as (wire, far):
            before = time.time_ns()
            far.send(numbered(1)[0])
            stamps = []
            while not stamps:
                stamps = [stamp for data, stamp in wire.receive_timed() if is_ours(data)]
            assert before <= stamps[0] <= time.time_ns()

    in_namespace(stamped)


def test_what_the_host_sends_itself_is_not_received():
    def outgoing():
        with packet_wire() as (wire, far), host_end(WIRE) as host:
            host.send(numbered(2)[0])
            assert far.recv(2000) == numbered(2)[0]
            assert wire.transmit(numbered(2)[1:]) == 1
            far.send(numbered(3)[2])
            assert receive_ours(wire, 1) == numbered(3)[2:]

    in_namespace(outgoing)


def test_a_full_ring_drops_and_counts():
    def flood():
        with packet_wire() as (wire, far):
            for data in numbered(RING + 100):
                far.send(data)
            got = receive_ours(wire, 1)
            while more := wire.receive(64):
                got += [data for data in more if is_ours(data)]
            assert got == numbered(len(got))
            assert len(got) + wire.stats()["rx_drop_ring"] >= RING + 100
            assert wire.stats()["rx_drop_ring"] >= 100

    in_namespace(flood)


def test_frames_longer_than_the_interface_takes_are_lost_and_counted():
    def oversize():
        with packet_wire() as (wire, far):
            assert wire.transmit([*numbered(1, 1600), *numbered(1)]) == 2
            assert far.recv(2000) == numbered(1)[0]
            stats = wire.stats()
            assert stats["tx_oversize"] == stats["tx_lost"] == 1

    in_namespace(oversize)


def test_a_guest_talks_to_the_other_end():
    def talk():
        make_veth(WIRE, FAR)
        with cdna.Machine(wire=f"packet:{WIRE}") as machine, host_end(FAR) as far:
            guest = machine.attach("alice")
            there = [frame(OUTSIDE, mac(guest), i) for i in range(30)]
            assert guest.send(there) == 30
            assert [far.recv(2000) for _ in there] == there
            back = [frame(mac(guest), OUTSIDE, i) for i in range(30)]
            for data in back:
                far.send(data)
            got = []
            until(lambda: got.extend(receive_all(guest)) or len(got) >= 30)
            assert [data for data in got if is_ours(data)] == back

    in_namespace(talk)


def test_a_wire_can_be_waited_for():
    def wait():
        with packet_wire() as (wire, far):
            (fd,) = wire.wait_fds
            assert not wire.needs_poll
            far.send(numbered(1)[0])
            assert select.select([fd], [], [], 20)[0]
            receive_ours(wire, 1)
            until(lambda: wire.receive() == [] and not select.select([fd], [], [], 0)[0])
        assert wire.wait_fds == []

    in_namespace(wait)


# --- an interface that comes and goes -----------------------------------------------------------------------


def test_the_link_goes_down_with_the_interface_and_comes_back_with_another(caplog):
    caplog.set_level("INFO", "cdna.nic")

    def vanish():
        with packet_wire() as (wire, far):
            fds = wire.wait_fds
            send_all(wire, numbered(1))
            assert far.recv(2000) == numbered(1)[0]
            delete_link(WIRE)
            until(lambda: not wire.link and said(caplog))
            assert wire.transmit(numbered(3)) == 3
            assert wire.stats()["tx_lost"] == 3
            until(lambda: wire.receive() == [] and not select.select(fds, [], [], 0)[0])
            assert len(said(caplog)) == 1
            assert said(caplog)[0].startswith(f"{WIRE}: the interface ")
            assert said(caplog)[0].endswith(": link down")

            make_veth(WIRE, FAR)
            until(lambda: wire.link)
            assert said(caplog)[1:] == [f"{WIRE}: the device is back: link up"]
            assert wire.wait_fds == fds
            assert select.select(fds, [], [], 20)[0]
            with host_end(FAR) as new:
                send_all(wire, numbered(300))
                assert [new.recv(2000) for _ in range(300)] == numbered(300)
                for data in numbered(300):
                    new.send(data)
                assert receive_ours(wire, 300) == numbered(300)

    in_namespace(vanish)


@pytest.mark.parametrize(("end", "why"), [(WIRE, "is down"), (FAR, "has no carrier")])
def test_an_interface_that_is_down_or_unplugged_is_a_link_that_is_down(caplog, end, why):
    def down():
        with packet_wire() as (wire, _):
            set_link(end, up=False)
            until(lambda: not wire.link and said(caplog))
            assert said(caplog) == [f"{WIRE}: the interface {why}: link down"]
            assert wire.transmit(numbered(3)) == 3
            assert wire.stats()["tx_lost"] == 3
            set_link(end, up=True)
            until(lambda: wire.link)
            with host_end(FAR) as new:
                send_all(wire, numbered(1))
                assert new.recv(2000) == numbered(1)[0]

    in_namespace(down)


def test_the_engine_runs_on_through_all_of_it():
    def run():
        make_veth(WIRE, FAR)
        with cdna.Machine(wire=PacketWire(WIRE)) as machine:
            guest = machine.attach("alice")
            comes_and_goes(
                machine, guest, FAR, OSError, lambda: delete_link(WIRE), lambda: make_veth(WIRE, FAR)
            )

    in_namespace(run)


def test_an_interface_that_is_renamed_is_still_the_same():
    def rename():
        from pyroute2 import IPRoute

        with packet_wire() as (wire, far):
            index = socket.if_nametoindex(WIRE)
            with IPRoute() as netlink:
                netlink.link("set", index=index, state="down")
                netlink.link("set", index=index, ifname="cdna-test9")
                netlink.link("set", index=index, state="up")
            until(wire.look)
            send_all(wire, numbered(1))
            assert far.recv(2000) == numbered(1)[0]

    in_namespace(rename)


def test_a_closed_wire_leaves_the_interface_and_no_thread():
    def close():
        before = set(threading.enumerate())
        with packet_wire() as (wire, _):
            pass
        wire.close()
        assert wire.fileno() == -1
        assert WIRE in dict(socket.if_nameindex()).values()
        assert wire.transmit(numbered(2)) == 2
        assert wire.stats()["tx_lost"] == 2
        assert set(threading.enumerate()) <= before

    in_namespace(close)


# --- bad input ----------------------------------------------------------------------------------------------


def test_an_interface_that_is_not_there():
    def missing():
        with pytest.raises(ResourceError, match="packet cdna-none: there is no such interface"):
            PacketWire("cdna-none")

    in_namespace(missing)


def test_an_interface_that_is_no_ethernet():
    def lo():
        with pytest.raises(ResourceError, match="packet lo: it is no Ethernet interface"):
            PacketWire("lo")

    in_namespace(lo)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights, so needs to have them")
def test_without_rights_it_is_told_what_is_needed():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            PacketWire("lo")
        except ResourceError as error:
            status = 0 if "CAP_NET_RAW" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a b", "a/b", ".."])
def test_a_name_that_cannot_be(name):
    with pytest.raises(ConfigError, match="interface name"):
        PacketWire(name)


def test_a_wire_by_name():
    def by_name():
        make_veth(WIRE, FAR)
        with make_wire(f"packet:{WIRE}") as wire:
            assert wire.offloads
        with make_wire(f"packet:{WIRE},vnet=off") as wire:
            assert not wire.offloads

    in_namespace(by_name)


@pytest.mark.parametrize(
    "text", ["packet:", "packet:x,queues=2", "packet:x,vnet=maybe", "packet:x,vnet=on,vnet=on"]
)
def test_settings_that_cannot_be(text):
    with pytest.raises(ConfigError, match="wire 'packet:"):
        make_wire(text)
