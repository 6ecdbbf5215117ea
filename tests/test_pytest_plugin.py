"""The pytest plugin, as another project uses it: in a folder of its own."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
INSTALLED = any(point.value == "cdna.pytest_plugin" for point in entry_points(group="pytest11"))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project whose tests find the package, and the plugin whether it is installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider\n")
    if not INSTALLED:
        pytester.plugins = ["cdna.pytest_plugin"]
    return pytester


def run(project: pytest.Pytester, code: str, **outcomes: int) -> pytest.RunResult:
    project.makepyfile(code)
    result = project.runpytest_subprocess("-q", timeout=100)
    assert result.parseoutcomes() == outcomes, result.stdout.str() + result.stderr.str()
    return result


def test_the_entry_point_is_declared():
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    assert project["entry-points"]["pytest11"] == {"cdna": "cdna.pytest_plugin"}


def test_nothing_is_imported_before_a_fixture_is_used(project):
    run(
        project,
        """
        import sys

        def test_light():
            assert "cdna.pytest_plugin" in sys.modules
            assert not {"numpy", "scapy", "cdna.machine", "cdna.errors"} & sys.modules.keys()

        def test_with_a_guest(cdna_guest):
            cdna_guest("alice")
            assert "cdna.machine" in sys.modules
            assert "scapy" not in sys.modules
        """,
        passed=2,
    )


def test_guests_send_and_receive(project):
    run(
        project,
        """
        def frame(to, source, text):
            return (to.mac_bytes + source.mac_bytes + b"\\x88\\xb5" + text).ljust(60, b"\\0")

        def test_two_guests(cdna_guest):
            alice, bob = cdna_guest("alice"), cdna_guest("bob", rx_ring=8)
            assert bob.recv() == []
            alice.send(frame(bob, alice, b"one"), frame(bob, alice, b"two"))
            assert bob.recv() == [frame(bob, alice, b"one"), frame(bob, alice, b"two")]
            assert alice.recv() == []
            alice.send(frame(alice, bob, b"spoofed"))
            assert alice.stats()["tx_drop_spoof"] == 1

        def test_the_wire(cdna_nic, cdna_guest):
            alice = cdna_guest()
            outside = b"\\x02" * 6
            frame_out = outside + alice.mac_bytes + bytes(48)
            alice.send(frame_out)
            assert cdna_nic.wire.get() == [frame_out]
            cdna_nic.wire.put([alice.mac_bytes + outside + bytes(48)])
            assert alice.recv() == [alice.mac_bytes + outside + bytes(48)]
            assert cdna_nic.step() == 0
        """,
        passed=2,
    )


def test_a_guest_has_a_scapy_socket(project):
    run(
        project,
        """
        def test_scapy(cdna_guest):
            from scapy.all import ARP, Ether
            alice, bob = cdna_guest("alice", ip="10.7.0.1"), cdna_guest("bob", ip="10.7.0.2")
            alice.socket.send(Ether(dst=bob.mac) / ARP(pdst=bob.ip))
            (question,) = bob.socket.sniff(count=1, timeout=20)
            assert (question.psrc, question.hwsrc) == ("10.7.0.1", alice.mac)
            alice.send(Ether(src=alice.mac, dst=bob.mac, type=0x88b5) / (b"x" * 46))
            assert len(bob.socket.sniff(count=1, timeout=20)) == 1
        """,
        passed=1,
    )


def test_the_marker_says_which_machine(project):
    run(
        project,
        """
        import pytest
        from cdna.nic.loopback_wire import LoopbackWire
        from cdna.nic.queue_wire import QueueWire

        pytestmark = pytest.mark.cdna(contexts=5)

        def test_of_the_module(cdna_nic):
            assert cdna_nic.nic.contexts == 5

        @pytest.mark.cdna(wire="loopback", contexts=2, max_ring=64)
        def test_by_name(cdna_nic, cdna_guest):
            assert isinstance(cdna_nic.wire, LoopbackWire)
            assert (cdna_nic.nic.contexts, cdna_nic.nic.max_ring) == (2, 64)

        @pytest.mark.cdna(wire=lambda: QueueWire(2))
        def test_by_a_function(cdna_nic):
            assert cdna_nic.wire.put([bytes(60)] * 3) == 2

        @pytest.mark.cdna(start=True)
        def test_a_nic_that_runs(cdna_nic, cdna_guest):
            assert cdna_nic.nic.running
            alice, bob = cdna_guest(), cdna_guest()
            for i in range(200):
                alice.send(bob.mac_bytes + alice.mac_bytes + i.to_bytes(2, "big") + bytes(46))
                (frame,) = bob.recv(20)
                assert frame[12:14] == i.to_bytes(2, "big")
            assert bob.recv(0) == []
        """,
        passed=4,
    )


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("contexts=0", "0 contexts: give from 1 to 4096"),
        ("wire='nothing'", "unknown wire 'nothing'"),
        ("'loopback'", "'loopback' has no name: give wire="),
        ("speed=5", "speed"),
    ],
)
def test_a_marker_that_cannot_be(project, marker, message):
    result = run(
        project,
        f"""
        import pytest

        @pytest.mark.cdna({marker})
        def test_it(cdna_nic):
            pass
        """,
        errors=1,
    )
    result.stdout.fnmatch_lines([f"*pytest.mark.cdna: *{message.replace('[', '[[]')}*"])


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("protection", ["validated", "none", "iommu:direct-map"])
def test_hostile_neighbours_act_and_cost_nobody_a_frame(project, start, protection):
    run(
        project,
        f"""
        import pytest

        def frame(to, source, number):
            return to.mac_bytes + source.mac_bytes + b"\\x88\\xb5" + number.to_bytes(4, "big") + bytes(46)

        @pytest.mark.cdna(start={start})
        def test_it(cdna_nic, cdna_guest, cdna_hostile):
            alice, bob = cdna_guest("alice", protection="{protection}"), cdna_guest("bob")
            mallory, trudy = cdna_hostile(), cdna_hostile("sequence", "flood", name="trudy")
            number = 0
            while min([mallory.acts[way] for way in mallory.ways] + [len(trudy.faults)]) < 3:
                alice.send(frame(bob, alice, number))
                assert bob.recv(20) == [frame(bob, alice, number)]
                bob.send(frame(alice, bob, number))
                assert alice.recv(20) == [frame(alice, bob, number)]
                number += 1
            reasons = {{fault.reason.name for fault in mallory.faults}}
            expected = {{"FAULT_SEQUENCE", "FAULT_PRODUCER", "FAULT_LENGTH"}}
            # A NIC that runs may see two things that were done to a mailbox as one.
            assert reasons <= expected if {start} else reasons == expected
            assert {{fault.guest for fault in trudy.faults}} == {{"trudy"}}
            assert reasons and trudy.faults
            assert cdna_nic.vmm.tables.counters["refusals"] >= 6
            assert alice.stats()["faults"] == bob.stats()["faults"] == 0
        """,
        passed=1,
    )


def test_a_machine_that_is_stepped_by_hand_has_its_hostile_guests_act(project):
    run(
        project,
        """
        import pytest

        def test_it(cdna_nic, cdna_guest, cdna_hostile):
            alice = cdna_guest()
            mallory = cdna_hostile("broadcast")
            cdna_nic.step()
            assert mallory.acts["broadcast"] == 1
            assert len(alice.recv()) >= 8
            mallory = cdna_hostile("flood-wire", "spoof")
            cdna_nic.step(4)
            cdna_nic.step(4)
            assert len(cdna_nic.wire.get()) >= 8
            assert mallory.context.stats()["tx_drop_spoof"] == 2

        def test_no_such_way(cdna_hostile):
            with pytest.raises(ValueError, match="misbehaviour 'be kind': give some of spoof"):
                cdna_hostile("be kind")
        """,
        passed=2,
    )


def test_nothing_is_left_behind_and_a_failure_is_the_tests_own(project):
    run(
        project,
        """
        import gc, os, threading, pytest

        def held():
            gc.collect()
            return threading.active_count(), len(os.listdir("/proc/self/fd"))

        @pytest.fixture(scope="module")
        def before():
            import cdna.pytest_guests, cdna.guests.scapy_socket
            return held()

        @pytest.mark.cdna(start=True)
        def test_one(before, cdna_guest, cdna_hostile):
            cdna_hostile()
            cdna_guest().socket.sniff(timeout=0)
            assert False

        def test_two(before, cdna_guest, cdna_hostile):
            cdna_hostile()
            cdna_guest("x").socket.sniff(timeout=0)
            cdna_guest("x")

        def test_three(before):
            assert held() == before
        """,
        passed=1,
        failed=2,
    ).stdout.fnmatch_lines(["*guest 'x' exists*"])


def test_the_fixtures_are_listed_with_what_they_are(project):
    result = project.runpytest_subprocess("--fixtures", "--markers", timeout=100)
    result.stdout.fnmatch_lines(["@pytest.mark.cdna(wire=*"])
    result = project.runpytest_subprocess("--fixtures", timeout=100)
    result.stdout.fnmatch_lines(["cdna_nic*", "*A machine with a NIC*"])
