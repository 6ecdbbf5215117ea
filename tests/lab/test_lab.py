"""A lab in this process: guests come, change and go while others talk."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from cdna.abi import DESC_DTYPE, Takes
from cdna.errors import CdnaError, ConfigError
from cdna.lab import values
from cdna.lab.guest_plans import guest_plan
from cdna.lab.lab import Lab
from cdna.lab.namespace import in_thread
from cdna.lab.plan import NETS, LabPlan, host_addresses, plain_guests, with_addresses
from tests.support.lab import DEADLINE, needs_namespaces, unique, wait_for

UDP_SEGMENT = 103  # linux/udp.h

pytestmark = needs_namespaces


def plan(guests: int, **settings: str) -> LabPlan:
    plans = [guest_plan("", {**given, **settings}, {}, NETS) for given in plain_guests(guests)]
    return LabPlan(tuple(with_addresses(plans, NETS)))


def tap_plan(tap: str, net: str, *guests: dict[str, str]) -> LabPlan:
    """A lab on a tap, with addresses of this network."""
    nets = values.nets("", net)
    plans = with_addresses([guest_plan("", guest, {}, nets) for guest in guests], nets)
    return LabPlan(tuple(plans), wire=f"tap:{tap}", net=nets, host=host_addresses(nets))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(plan(2)) as lab:
        yield lab


def sock_in(lab: Lab, guest: str, version: int = 4, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket of a guest, at its address of this version and a port of the kernel's choice."""
    member = lab.member(guest)
    address = next(str(a.ip) for a in member.plan.addresses if a.version == version)

    def make() -> socket.socket:
        from pyroute2.netns import setns

        setns(member.namespace.fd)
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
        sock.bind((address, 0))
        sock.settimeout(DEADLINE)
        return sock

    return in_thread(make)


def reaches(lab: Lab, source: str, to: str, version: int = 4, patience: float = DEADLINE) -> bool:
    """Whether a datagram arrives; it is sent again until it does, or patience ends."""
    with sock_in(lab, source, version) as sender, sock_in(lab, to, version) as receiver:
        receiver.settimeout(0.05)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                sender.sendto(b"hello", receiver.getsockname()[:2])
            except OSError:  # no carrier
                continue
            try:
                return receiver.recv(100) == b"hello"
            except TimeoutError:
                continue
    return False


def transfer(lab: Lab, source: str, to: str, size: int, version: int = 4) -> None:
    """Sends so many bytes over TCP and checks them."""
    block = bytes(range(256)) * 256
    with sock_in(lab, to, version, socket.SOCK_STREAM) as listener:
        listener.listen()
        with sock_in(lab, source, version, socket.SOCK_STREAM) as sender:
            sender.connect(listener.getsockname()[:2])
            receiver, _ = listener.accept()
            with receiver:
                receiver.settimeout(DEADLINE)
                received = in_parallel(lambda: send(sender, block, size), lambda: receive(receiver))
    assert received == (block * (size // len(block) + 1))[:size]


def send(sock: socket.socket, block: bytes, size: int) -> None:
    for _ in range(size // len(block)):
        sock.sendall(block)
    sock.sendall(block[: size % len(block)])
    sock.shutdown(socket.SHUT_WR)


def receive(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def in_parallel(other: Callable[[], None], this: Callable[[], bytes]) -> bytes:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(other)
        result = this()
        future.result()
    return result


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_between_guests_byte_for_byte(lab: Lab, version: int) -> None:
    transfer(lab, "g1", "g2", 20_000_003, version)
    counters = lab.counters("g1")
    assert counters["tx_bytes"] > 20_000_000
    assert counters["tx_frames"] < 20_000_000 / 2900  # large segments, not one frame a packet
    assert not any(value for name, value in counters.items() if "drop" in name)


@pytest.mark.parametrize("protection", ["none", "iommu:shared", "iommu:persistent", "iommu:direct-map"])
def test_each_protection_carries_tcp(protection: str) -> None:
    with Lab(plan(2, protection=protection)) as lab:
        transfer(lab, "g1", "g2", 3_000_000)


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_that_a_program_sends_at_once_travel_at_once(lab: Lab, version: int) -> None:
    """UDP_SEGMENT, as QUIC uses it: one frame for the NIC, 40 datagrams for the receiver."""
    assert reaches(lab, "g1", "g2", version)
    block = bytes(range(250)) * 160
    with sock_in(lab, "g1", version) as sender, sock_in(lab, "g2", version) as receiver:
        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
        to = lab.member("g2")
        before = to.counters()["rx_frames"]
        sender.sendto(block, receiver.getsockname()[:2])
        assert b"".join(receiver.recv(2000) for _ in range(40)) == block
        if to.namespace.takes & (Takes.TAKES_USO4 if version == 4 else Takes.TAKES_USO6):
            assert to.counters()["rx_frames"] - before < 10  # beside neighbour discovery's


def test_a_guest_that_comes_and_goes(lab: Lab) -> None:
    added = lab.add({"name": "late", "rate": "1G"})
    assert [str(a.ip) for a in added.addresses] == ["10.77.0.3", "fd77::3"]
    assert reaches(lab, "late", "g1")
    assert reaches(lab, "g1", "late", 6)
    assert "10.77.0.3\tlate\n" in lab.hosts()
    lab.remove("LATE")  # names of hosts have no case
    assert "late" not in lab.hosts()
    assert reaches(lab, "g1", "g2")
    assert {t.guest for t in lab.totals()} == {"late", "g1", "g2"}
    with pytest.raises(ConfigError, match="no guest 'late': give one of this lab"):
        lab.remove("late")


def test_an_address_that_was_given_back_is_given_again(lab: Lab) -> None:
    lab.add({"name": "a"})
    lab.remove("a")
    assert str(lab.add({"name": "b"}).addresses[0].ip) == "10.77.0.3"


def test_many_come_and_go(lab: Lab) -> None:
    free = lab.machine.memory.free_pages
    for _ in range(3):
        for n in range(5):
            lab.add({"name": f"x{n}"})
        for n in range(5):
            lab.remove(f"x{n}")
    assert lab.machine.memory.free_pages == free
    assert reaches(lab, "g1", "g2")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "g1"}, "two of this name"),
        ({"name": "x", "address": "10.77.0.1"}, "taken by g1"),
        ({"name": "x", "mac": "02:cd:0a:00:00:00"}, "context 0's already"),
        ({"name": "x", "protection": "strong"}, "protection strong"),
    ],
)
def test_a_guest_that_cannot_be_leaves_nothing(lab: Lab, settings: dict[str, str], said: str) -> None:
    free = lab.machine.memory.free_pages
    with pytest.raises(CdnaError, match=said):
        lab.add(settings)
    assert len(lab.describe()) == 2
    assert lab.machine.memory.free_pages == free
    lab.add({"name": "x"})
    assert reaches(lab, "x", "g1")


def test_link(lab: Lab) -> None:
    assert reaches(lab, "g1", "g2")
    lab.set_link("g2", False)
    assert not reaches(lab, "g1", "g2", patience=0.5)
    links = lab.member("g2").namespace.run(lambda netlink: netlink.get_links(ifname="eth0"))
    assert links[0].get("carrier") == 0
    lab.set_link("g2", True)
    assert reaches(lab, "g1", "g2")


def test_vlans_part_guests(lab: Lab) -> None:
    lab.change("g1", {"vlan": "5"})
    assert not reaches(lab, "g1", "g2", patience=0.5)
    lab.change("g2", {"vlan": 5})
    assert reaches(lab, "g1", "g2")


def test_protection_changes_under_a_connection(lab: Lab) -> None:
    with sock_in(lab, "g2", kind=socket.SOCK_STREAM) as listener:
        listener.listen()
        with sock_in(lab, "g1", kind=socket.SOCK_STREAM) as sender:
            sender.connect(listener.getsockname())
            receiver, _ = listener.accept()
            with receiver:
                receiver.settimeout(DEADLINE)
                mac = lab.describe()[0]["mac"]
                before = lab.counters("g1")["tx_frames"]
                for protection in ("iommu:shared", "none", "validated"):
                    lab.change("g1", {"protection": protection, "weight": "2"})
                    sender.sendall(protection.encode())
                    assert receiver.recv(100) == protection.encode()
                row = lab.describe()[0]
    assert (row["mac"], row["protection"], row["weight"], row["context"]) == (mac, "validated", 2, 0)
    assert lab.counters("g1")["tx_frames"] > before  # the counters go on


def test_protection_starts_a_context_again_that_the_nic_has_stopped() -> None:
    with Lab(plan(2, protection="none")) as lab:
        nic = lab.machine.nic
        rings = nic.rings_view(lab.member("g1").driver.context.index).view(DESC_DTYPE)
        rings["addr"] = 1 << 60  # what a guest that may write its rings can do
        wait_for(lambda: reaches(lab, "g2", "g1", patience=0.1) or lab.describe()[0]["state"] == "faulted")
        assert lab.describe()[0]["state"] == "faulted"
        lab.change("g1", {"protection": "none"})
        assert reaches(lab, "g2", "g1")
        assert lab.counters("g1")["faults"] == 1


def test_a_link_that_is_down_stays_down_under_another_protection(lab: Lab) -> None:
    lab.set_link("g1", False)
    lab.change("g1", {"protection": "none"})
    assert not reaches(lab, "g2", "g1", patience=0.3)
    lab.set_link("g1", True)
    assert reaches(lab, "g2", "g1")


def test_a_change_that_cannot_be_changes_nothing(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="vlan 9999"):
        lab.change("g1", {"rate": "1M", "vlan": "9999"})
    with pytest.raises(
        ConfigError,
        match="can change vlan, weight, rate, storm, flood, anti_spoof, promiscuous, protection, gro",
    ):
        lab.change("g1", {"mtu": "9000"})
    assert (lab.describe()[0]["rate"], lab.describe()[0]["vlan"]) == (0, 0)


def test_rate_holds_a_guest(lab: Lab) -> None:
    lab.change("g1", {"rate": "40M"})
    start = time.monotonic()
    transfer(lab, "g1", "g2", 5_000_000)  # one second, less what a full bucket lets through
    assert time.monotonic() - start > 0.7


def test_host_and_guest_over_a_tap() -> None:
    tap, net = unique()
    with Lab(tap_plan(tap, net, {"name": "a"})) as lab:
        there = str(lab.host[0].ip)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.bind((there, 0))
            host.settimeout(DEADLINE)
            with sock_in(lab, "a") as guest:
                guest.sendto(b"hello", host.getsockname())
                assert host.recv(10) == b"hello"
                host.sendto(b"answer", guest.getsockname())
                assert guest.recv(10) == b"answer"
        assert lab.wire()["host"] == [str(lab.host[0])]
    with pytest.raises(OSError, match="no interface"):
        socket.if_nametoindex(tap)


def test_a_network_that_the_machine_is_in_is_not_taken_over() -> None:
    tap, net = unique()
    with Lab(tap_plan(tap, net)):
        with pytest.raises(CdnaError, match=f"{tap} has .* already; give other networks"):
            Lab(tap_plan(f"{tap}b", net))
        with pytest.raises(OSError, match="no interface"):
            socket.if_nametoindex(f"{tap}b")


def test_closing_twice(lab: Lab) -> None:
    lab.close()
    lab.close()
    with pytest.raises(ConfigError, match="was closed"):
        lab.add({"name": "x"})
