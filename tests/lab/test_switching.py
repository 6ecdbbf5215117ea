"""What stands behind a guest, MTUs from guest to wire, and drops: each under its true reason."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Serve, Up, needs_namespaces, unique, wait_for

pytestmark = needs_namespaces

BEHIND = "02:aa:00:00:00:01"
# A bridge takes over the guest's device and its place in the network, under an address of its own.
BRIDGE = f"""
ip link add br0 type bridge && ip addr flush dev eth0 && ip link set br0 address {BEHIND} &&
ip link set eth0 master br0 && ip link set br0 up && ip addr add 10.77.0.77/24 dev br0 &&
ping -c 1 -w 20 10.77.0.1"""
FLOOD = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(3000):
    s.sendto(bytes(1000), ("10.77.0.9", 9))
"""


def counters(up: Up, guest: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(up.ctl("stats", guest, "--json").stdout)
    return found


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with Up(tmp_path / "lab", "--guests", "plain,router") as up:
        yield up


def test_a_bridge_in_a_guest_is_reached_when_sources_are_not_checked(up: Up) -> None:
    assert up.ctl("set", "router", "anti_spoof=off").returncode == 0
    done = up.exec("router", "sh", "-c", BRIDGE)
    assert "1 received" in done.stdout, done.stderr
    shown = up.ctl("show", "router").stdout
    assert BEHIND in shown
    assert json.loads(up.ctl("show", "plain", "--json").stdout)["learned"] == []
    up.ctl("set", "router", "anti_spoof=on")
    assert json.loads(up.ctl("show", "router", "--json").stdout)["learned"] == []


def test_a_namespace_can_be_promiscuous(tmp_path: Path) -> None:
    with Serve(tmp_path / "lab", "--sandbox", "off", "--context", "namespace:router,promiscuous=on") as up:
        assert json.loads(up.ctl("list", "--json").stdout)["guests"][0]["promiscuous"] is True
        assert up.ctl("set", "router", "promiscuous=off").returncode == 0
        assert json.loads(up.ctl("list", "--json").stdout)["guests"][0]["promiscuous"] is False


def test_frames_that_the_guests_own_device_drops_are_counted(up: Up) -> None:
    """They wait for a rate limit: rings, then the tap's queue fill, and the kernel drops the rest."""
    up.ctl("set", "plain", "rate=8K")
    up.exec("plain", "ip", "neigh", "add", "10.77.0.9", "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    assert up.exec("plain", "python3", "-c", FLOOD).returncode == 0
    found = counters(up, "plain")
    assert found["tx_drop_device"] > 0
    assert counters(up, "router")["tx_drop_device"] == 0
    assert "drops of plain: tx_drop_device " in up.ctl("stats").stdout
    metrics = up.ctl("metrics").stdout
    assert 'cdna_context_dropped_frames_total{context="plain",direction="tx",reason="device"}' in metrics
    up.ctl("reset", "plain")
    assert counters(up, "plain")["tx_drop_device"] >= found["tx_drop_device"]


def test_the_mtu_of_a_guest_holds_whatever_its_device_is_set_to(up: Up) -> None:
    up.exec("plain", "ip", "link", "set", "eth0", "mtu", "3000")
    assert "100% packet loss" in up.exec("plain", "ping", "-c1", "-w1", "-s", "2000", "router").stdout
    assert counters(up, "plain")["tx_drop_mtu"] > 0
    assert "1 received" in up.exec("plain", "ping", "-c1", "-w20", "-s", "1400", "router").stdout


def test_the_tap_of_a_lab_has_the_mtu_of_its_guests(tmp_path: Path) -> None:
    tap, net = unique()
    with Up(tmp_path / "lab", "--guests", "1", "--wire", f"tap:{tap}", "--net", net, "--mtu", "9000") as up:
        assert Path(f"/sys/class/net/{tap}/mtu").read_text() == "9000\n"
        host = net.replace(".0/24", ".254")
        done = up.exec("g1", "ping", "-c1", "-w20", "-M", "do", "-s", "8972", host)
        assert "1 received" in done.stdout
        assert up.end(signal.SIGTERM)[2] == ""


@pytest.fixture
def veth() -> Iterator[str]:
    name = unique()[0]
    ip("link", "add", f"{name}a", "mtu", "1400", "type", "veth", "peer", "name", f"{name}b")
    try:
        for end in "ab":
            ip("link", "set", f"{name}{end}", "up")
        yield f"{name}a"
    finally:
        ip("link", "del", f"{name}a")


def ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True)


def test_a_wire_with_a_smaller_mtu_than_its_guests_is_told_of_and_its_drops_are_shown(
    tmp_path: Path, veth: str
) -> None:
    with Up(tmp_path / "lab", "--guests", "g1,g2", "--wire", f"packet:{veth}") as up:
        up.exec("g1", "ip", "neigh", "add", "10.77.0.9", "lladdr", "02:00:00:00:00:99", "dev", "eth0")
        # To the longest byte: the kernel would drop an untagged frame of 1401 to 1404 without a word.
        up.exec("g1", "ping", "-c1", "-W1", "-s", str(1401 - 28), "10.77.0.9")
        wait_for(lambda: "drops of the wire: tx_lost 1, tx_oversize 1" in up.ctl("stats").stdout)
        assert up.ctl("add", "g3", "--mtu", "1300").returncode == 0
        _, _, err = up.end(signal.SIGTERM)
    assert err == (
        f"cdna up: wire packet:{veth} has MTU 1400, less than guest g1, g2 (1500): longer frames are dropped "
        f"there; give mtu=1400, or: ip link set {veth} mtu 1500\n"
    )
