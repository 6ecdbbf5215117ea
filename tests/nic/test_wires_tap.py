"""The tap wire, in a network namespace of its own: real frames both ways."""

import ctypes
import os
import socket
import threading

import pytest

from cdna.errors import ConfigError, ResourceError
from cdna.nic.tap import open_tap
from cdna.nic.tap_wire import TapWire

CLONE_NEWNET = 0x40000000
ETHERTYPE = 0x88B5  # IEEE local experimental: the kernel sends none of these itself


def numbered(n, size=100):
    header = b"\xff" * 6 + b"\x02\0\0\0\0\x09" + ETHERTYPE.to_bytes(2, "big")
    return [header + i.to_bytes(4, "big") * ((size - 14) // 4) for i in range(n)]


def in_namespace(function):
    """Runs `function` in a thread that has a network namespace of its own, which ends with the thread."""
    outcome = []

    def run():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            outcome.append(os.strerror(ctypes.get_errno()))
            return
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], str):
        pytest.skip(f"no network namespace of its own: {outcome[0]} (run as root)")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]


pytestmark = pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")


def host_end(name):
    host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
    host.bind((name, ETHERTYPE))
    host.settimeout(10)
    return host


def receive_ours(wire, n):
    """Frames of the test's own ethertype; the kernel sends some of its own (neighbour discovery)."""
    frames = []
    while len(frames) < n:
        frames += [frame for frame in wire.receive(64) if frame[12:14] == ETHERTYPE.to_bytes(2, "big")]
    return frames


@pytest.mark.parametrize("size", [60, 1514])
def test_frames_go_both_ways(size):
    def both_ways():
        frames = numbered(50, size)
        with TapWire("cdna-test0") as wire, host_end("cdna-test0") as host:
            assert wire.transmit(frames) == 50
            assert [host.recv(2000) for _ in frames] == frames
            for frame in frames:
                host.send(frame)
            assert receive_ours(wire, 50) == frames
            assert wire.stats()["tx_frames"] == 50
            assert wire.stats()["tx_lost"] == 0

    in_namespace(both_ways)


def test_a_closed_wire_gives_its_device_back():
    def close():
        wire = TapWire("cdna-test0")
        assert "cdna-test0" in dict(socket.if_nameindex()).values()
        assert wire.fileno() >= 0
        wire.close()
        wire.close()
        assert wire.fileno() == -1
        assert "cdna-test0" not in dict(socket.if_nameindex()).values()
        assert wire.transmit(numbered(2)) == 2
        assert wire.stats()["tx_lost"] == 2

    in_namespace(close)


@pytest.mark.parametrize("notice", ["transmit", "receive"])
def test_the_link_goes_down_with_the_device(notice):
    def vanish():
        from pyroute2 import IPRoute

        with TapWire("cdna-test0") as wire:
            with IPRoute() as netlink:
                netlink.link("del", index=socket.if_nametoindex("cdna-test0"))
            assert wire.link
            if notice == "transmit":
                assert wire.transmit(numbered(3)) == 3
                assert wire.stats()["tx_lost"] == 3
            else:
                assert wire.receive() == []
            assert not wire.link

    in_namespace(vanish)


def test_a_device_that_is_down_takes_nothing_and_the_loss_is_counted():
    def down():
        from pyroute2 import IPRoute

        with TapWire("cdna-test0") as wire, IPRoute() as netlink:
            index = socket.if_nametoindex("cdna-test0")
            netlink.link("set", index=index, state="down")
            assert wire.transmit(numbered(3)) == 3
            assert wire.stats()["tx_lost"] == 3
            netlink.link("set", index=index, state="up")
            with host_end("cdna-test0") as host:
                wire.transmit(numbered(1))
                assert [host.recv(2000)] == numbered(1)

    in_namespace(down)


def test_a_tap_that_is_taken():
    def twice():
        with TapWire("cdna-test0"), pytest.raises(ResourceError, match="another program holds it"):
            TapWire("cdna-test0")

    in_namespace(twice)


def test_a_name_that_is_no_taps():
    def lo():
        with pytest.raises(ResourceError, match="lo exists and is no single-queue tap"):
            TapWire("lo")

    in_namespace(lo)


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
                open_tap("cdna-test0")
            except ResourceError as error:
                text = str(error)
                status = 0 if "CAP_NET_ADMIN" in text or "/dev/net/tun: Permission denied" in text else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    in_namespace(unprivileged)


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a b", "a/b", "tap%d", ".", ".."])
def test_a_name_that_cannot_be(name):
    with pytest.raises(ConfigError, match="tap name"):
        TapWire(name)
