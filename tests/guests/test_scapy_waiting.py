"""Scapy sockets of guests: waiting for frames, sharing them, and the end of it."""

from __future__ import annotations

import ctypes.util
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from scapy.all import (
    IP,
    UDP,
    AsyncSniffer,
    Ether,
    Raw,
    sendp,
)
from scapy.error import Scapy_Exception

import cdna
from cdna import abi
from cdna.errors import ConfigError, ContextFault
from cdna.guests import shared_driver
from cdna.guests.scapy_socket import ScapySocket
from tests.support.scapy_pair import (
    BOB_IP,
    KINDS,
    Pair,
    data_to,
    numbers,
    wait_for,
)

# --- waiting --------------------------------------------------------------------------------------------


def test_frames_that_are_left_keep_the_socket_readable(pair):
    for i in range(200):
        pair.alice.send(data_to(pair.bob, i))
    seen: list[int] = []
    while len(seen) < 200:
        assert select.select([pair.bob], [], [], 20)[0] == [pair.bob]  # not scapy's: the descriptor alone
        packet = pair.bob.recv()
        seen += numbers([packet] if packet is not None else [])
    assert seen == list(range(200))
    assert pair.bob.recv() is None


def test_a_descriptor_in_an_epoll_is_woken_by_what_comes_later(pair):
    with select.epoll() as epoll:
        epoll.register(pair.bob, select.EPOLLIN)
        assert epoll.poll(0) == []
        for i in range(50):
            pair.alice.send(data_to(pair.bob, i))
            received = []
            while not received:
                assert epoll.poll(20)
                received = [p for p in [pair.bob.recv()] if p is not None]
            assert numbers(received) == [i]


def test_who_waits_while_another_thread_sends_misses_nothing(pair):
    def send() -> None:
        for i in range(300):
            pair.alice.send(data_to(pair.bob, i))

    received: list[int] = []
    thread = threading.Thread(target=send)
    thread.start()
    while len(received) < 300:
        assert ScapySocket.select([pair.bob], 20) == [pair.bob]
        packet = pair.bob.recv()
        received += numbers([packet] if packet is not None else [])
    thread.join()
    assert received == list(range(300))


def test_nothing_comes_and_the_time_runs_out(pair):
    assert ScapySocket.select([pair.bob], 0) == []
    assert ScapySocket.select([pair.bob], 0.05) == []
    assert pair.bob.recv() is None
    assert len(pair.bob.sniff(timeout=0.05)) == 0


def test_times_are_in_nanoseconds_and_do_not_go_back(pair):
    before = time.time_ns()
    packets = [data_to(pair.bob, i) for i in range(20)]
    sendp(packets, socket=pair.alice, verbose=0)
    received = pair.bob.sniff(count=20, timeout=20)
    times = [packet.time for packet in received]
    assert times == sorted(times)
    assert before <= int(times[0] * 1_000_000_000) <= time.time_ns()
    assert any(int(t * 1_000_000_000) % 1000 for t in times)


# --- several sockets of one guest -----------------------------------------------------------------------


def test_each_socket_of_a_guest_gets_every_frame(pair):
    with ScapySocket(pair.bob.driver) as second, ScapySocket(pair.bob.shared, type=0x88B6) as other:
        for i in range(100):
            pair.alice.send(data_to(pair.bob, i))
        assert numbers(pair.bob.sniff(count=100, timeout=20)) == list(range(100))
        assert numbers(second.sniff(count=100, timeout=20)) == list(range(100))
        assert other.recv() is None
        pair.alice.send(Ether(dst=pair.bob.mac, type=0x88B6) / Raw(b"seen"))
        assert other.sniff(count=1, timeout=20)[0].type == 0x88B6
    pair.alice.send(data_to(pair.bob, 5))
    assert numbers(pair.bob.sniff(count=2, timeout=20)[1:]) == [5]


def test_a_socket_that_lags_behind_loses_and_counts(stepped, monkeypatch):
    monkeypatch.setattr(shared_driver, "INBOX", 10)
    with ScapySocket(stepped.bob.shared) as lazy:
        for i in range(30):
            stepped.alice.send(data_to(stepped.bob, i))
            assert numbers([stepped.bob.recv()]) == [i]
        assert lazy.dropped == 20
        assert numbers(lazy.sniff(count=10, timeout=20)) == list(range(10))
        assert stepped.bob.dropped == 0


def test_a_single_socket_that_nobody_reads_leaves_the_dropping_to_the_nic(tmp_path):
    pair = Pair("stepped", tmp_path, rx_ring=8)
    for i in range(20):
        pair.alice.send(data_to(pair.bob, i))
    assert numbers(pair.bob.sniff(count=8, timeout=20)) == list(range(8))
    assert pair.bob.driver.context.stats()["rx_drop_no_buffer"] == 12
    pair.close()


def test_what_the_guest_sends_is_seen_by_who_asks_for_it(pair):
    with ScapySocket(pair.alice.shared, outgoing=True) as watching:
        pair.alice.send(data_to(pair.bob, 9))
        assert numbers(watching.sniff(count=1, timeout=20)) == [9]
        assert pair.alice.recv() is None


@pytest.mark.skipif(ctypes.util.find_library("pcap") is None, reason="no libpcap")
def test_a_filter(pair):
    with ScapySocket(pair.bob.shared, filter="udp port 53") as chosen:
        for port in (53, 54, 53):
            pair.alice.send(Ether(dst=pair.bob.mac) / IP(dst=BOB_IP) / UDP(sport=1, dport=port))
        assert [p[UDP].dport for p in chosen.sniff(count=2, timeout=20)] == [53, 53]
        assert chosen.recv() is None
    with pytest.raises(Scapy_Exception, match="cannot set the filter"):
        ScapySocket(pair.bob.shared, filter="no such filter")


# --- the end --------------------------------------------------------------------------------------------


def test_a_closed_socket(pair):
    pair.bob.close()
    pair.bob.close()
    assert pair.bob.fileno() == -1
    with pytest.raises(EOFError, match="closed"):
        pair.bob.recv()
    with pytest.raises(EOFError, match="closed"):
        pair.bob.send(bytes(60))
    assert ScapySocket.select([pair.bob], 20) == [pair.bob]
    with ScapySocket(pair.drivers[1]) as again:
        pair.alice.send(Ether(dst=again.mac, type=0x88B5) / Raw(b"\0\0\0\x08" + bytes(46)))
        assert numbers(again.sniff(count=1, timeout=20)) == [8]


def test_a_sniffer_ends_with_the_machine(pair):
    sniffer = AsyncSniffer(opened_socket=pair.bob)
    sniffer.start()
    wait_for(lambda: hasattr(sniffer, "continue_sniff"))
    pair.machine.close()
    sniffer.join(20)
    assert not sniffer.thread.is_alive()
    assert pair.bob.closed


def test_a_sniffer_ends_with_its_socket(pair):
    sniffer = AsyncSniffer(opened_socket=pair.bob)
    sniffer.start()
    wait_for(lambda: hasattr(sniffer, "continue_sniff"))
    pair.bob.close()
    sniffer.join(20)
    assert not sniffer.thread.is_alive()


def test_a_stopped_context_is_told_with_its_reason(tmp_path):
    pair = Pair("stepped", tmp_path, protection="none")
    index = pair.bob.driver.context.index
    ring = pair.machine.nic.rings_view(index).view(abi.DESC_DTYPE)
    ring[pair.machine.nic.max_ring :][:256]["len"] = 0  # receive descriptors that no NIC takes
    pair.alice.send(data_to(pair.bob, 6))
    assert ScapySocket.select([pair.bob], 20) == [pair.bob]
    with pytest.raises(ContextFault, match="bob"):
        pair.bob.recv()
    with pytest.raises(ContextFault, match="FAULT_LENGTH"):
        pair.bob.send(data_to(pair.alice, 6))
    pair.close()


def test_a_revoked_context_has_no_socket(stepped):
    stepped.machine.vmm.revoke(stepped.bob.driver.context)
    assert ScapySocket.select([stepped.bob], 20) == [stepped.bob]
    with pytest.raises(EOFError, match="no longer"):
        stepped.bob.recv()
    with pytest.raises(EOFError, match="no longer"):
        stepped.bob.send(bytes(60))
    stepped.bob.close()
    with pytest.raises(ConfigError, match="revoked"):
        ScapySocket(stepped.drivers[1])


@pytest.mark.parametrize("kind", KINDS)
def test_sockets_that_are_forgotten_leave_nothing(kind, tmp_path):
    pair = Pair(kind, tmp_path)
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        ScapySocket(pair.bob.shared)
        ScapySocket(pair.drivers[1], outgoing=True).l3.sniff(timeout=0)
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before
    pair.close()


PROGRAM = """
import sys, threading
import cdna
from scapy.all import sniff
alice, bob = cdna.scapy_guests("alice", "bob", start=len(sys.argv) > 1)
print("ready", flush=True)
sniff(opened_socket=bob, started_callback=lambda: print("sniffing", flush=True))
print("interrupted", threading.active_count() - (2 if len(sys.argv) > 1 else 0), flush=True)
"""


@pytest.mark.parametrize("how", [[], ["start"]])
def test_ctrl_c_ends_a_sniffer_and_the_program(how):
    program = [sys.executable, "-c", PROGRAM, *how]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "sniffing\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (out, errors, process.returncode) == ("interrupted 1\n", "", 0)


def test_importing_the_package_imports_neither_scapy_nor_numpy():
    check = "import sys, cdna; sys.exit('scapy' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
    assert cdna.ScapySocket is ScapySocket
    assert set(cdna.__all__) <= set(dir(cdna))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        cdna.Nothing  # noqa: B018
