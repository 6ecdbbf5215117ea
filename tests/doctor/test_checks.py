"""Each check on a machine that the test makes up: files under a directory, programs and trials by name."""

import errno
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from cdna.doctor import CHECKS, Finding, Host, examine, machine, network, programs
from cdna.extend.host import Trial, integers_of, ranges_of
from cdna.lab.kinds import namespace
from cdna.lab.kinds.vhost_user import checks as machines
from cdna.nic.wires import packet, tap

Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make({"proc/x": "text"}, has={"ip"}, fails={"tap": Trial(...)}, uid=...): a host with just these."""

    def host(
        files: dict[str, str] | None = None,
        *,
        has: set[str] | None = None,
        says: str | None = None,
        fails: dict[str, Trial] | None = None,
        uid: int = 1000,
        affinity: frozenset[int] = frozenset({0, 1}),
    ) -> Host:
        for name, text in (files or {}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Host(
            root=tmp_path,
            package=tmp_path / "cdna",
            uid=uid,
            affinity=affinity,
            which=lambda name: f"/usr/bin/{name}" if name in (has or set()) | {"apt-get"} else None,
            output=lambda command: says,
            trial=lambda trial: (fails or {}).get(trial.__name__.replace("_", "-"), Trial()),
        )

    return host


DENIED = Trial(errno.EPERM, "opening it")


def test_every_check_answers_on_an_empty_machine(make: Make) -> None:
    """No file, no program, and nothing that is tried works: still a report, and what is missing is mended."""
    nothing = replace(
        make(), trial=lambda trial: Trial(errno.ENOSYS, trial.__name__), which=lambda name: None
    )
    parts = examine(nothing)
    assert list(parts) == list(CHECKS)
    findings = [finding for part in parts.values() for finding in part]
    assert {"missing", "ok"} <= {finding.state for finding in findings}
    for finding in findings:
        assert finding.subject
        assert finding.found
        assert finding.meaning
        assert "\n" not in f"{finding.found}{finding.meaning}{finding.mend}"


@pytest.mark.parametrize(
    ("release", "state"),
    [("6.1.0-13-amd64", "ok"), ("5.1.0", "ok"), ("5.0.21", "missing"), ("4.19.0", "missing")],
)
def test_kernel(make: Make, release: str, state: str) -> None:
    assert machine.kernel(make({"proc/sys/kernel/osrelease": f"{release}\n"})).state == state


def test_modules(make: Make) -> None:
    suffix = EXTENSION_SUFFIXES[0]
    host = make({"cdna/abi.pyi": "", "cdna/nic/engine.pyi": "", f"cdna/abi{suffix}": ""})
    absent = machine.modules(host)
    assert absent.state == "missing"
    assert "cdna.nic.engine" in absent.meaning
    assert absent.mend == "pip install --force-reinstall cdna"
    assert machine.modules(make({"Makefile": ""})).mend == "make build"
    assert machine.modules(make({f"cdna/nic/engine{suffix}": ""})).state == "ok"


def test_cores(make: Make) -> None:
    topology = {"sys/devices/system/cpu/online": "0-3"}
    for cpu in range(4):
        name = f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        topology[name] = "0-1" if cpu < 2 else "2-3"
    host = make(topology)
    one = machine.cores(host)  # CPU 0 and 1 are one core
    assert one.state == "slower"
    assert one.mend == "taskset -p -c 0-3 $$"
    assert machine.smt(host).state == "slower"
    two = machine.cores(replace(host, affinity=frozenset({0, 2})))
    assert two.state == "ok"
    assert two.found == "2 of 2, CPU 0,2"


def test_one_core_that_nothing_mends(make: Make) -> None:
    host = make({"sys/devices/system/cpu/online": "0"}, affinity=frozenset({0}))
    assert machine.cores(host).state == "slower"
    assert machine.cores(host).mend is None
    assert machine.smt(host).state == "ok"


def test_isolated(make: Make) -> None:
    assert machine.isolated(make()).found == "none"
    assert machine.isolated(make({"sys/devices/system/cpu/isolated": "1,3-5\n"})).found == "CPU 1,3-5"


def test_governor(make: Make) -> None:
    name = "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"
    assert machine.governor(make()).state == "ok"
    assert machine.governor(make({name: "performance"})).state == "ok"
    assert machine.governor(make({name: "powersave"})).mend == "sudo cpupower frequency-set -g performance"


def test_huge_pages(make: Make) -> None:
    text = "MemTotal: 1 kB\nHugePages_Free: {}\nHugepagesize: 2048 kB\n"
    assert (
        machine.huge_pages(make({"proc/meminfo": text.format(0)}, uid=0)).mend
        == "sysctl -w vm.nr_hugepages=256"
    )
    some = machine.huge_pages(make({"proc/meminfo": text.format(12)}))
    assert (some.state, some.found) == ("ok", "12 free of 2048 kB")


@pytest.mark.parametrize(
    ("actions", "fails", "state", "found"),
    [
        ("kill_process log allow", {}, "ok", "seccomp and Landlock"),
        ("kill_process log allow", {"landlock": DENIED}, "missing", "seccomp alone"),
        ("kill_process log allow", {"libseccomp": DENIED}, "missing", "no libseccomp"),
        ("trap allow", {}, "missing", "Landlock alone"),
        ("", {"landlock": DENIED}, "missing", "neither seccomp nor Landlock"),
    ],
)
def test_sandbox(make: Make, actions: str, fails: dict[str, Trial], state: str, found: str) -> None:
    finding = machine.sandbox(make({"proc/sys/kernel/seccomp/actions_avail": actions}, fails=fails))
    assert (finding.state, finding.found) == (state, found)


def test_io_uring_disabled(make: Make) -> None:
    host = make({"proc/sys/kernel/io_uring_disabled": "2"}, fails={"io-uring": DENIED})
    assert machine.io_uring(host).mend == "sudo sysctl -w kernel.io_uring_disabled=0"


@pytest.mark.parametrize(("most", "state"), [("212992", "slower"), ("4194304", "ok"), (None, "ok")])
def test_socket_buffers(make: Make, most: str | None, state: str) -> None:
    files = {} if most is None else {"proc/sys/net/core/rmem_max": most}
    assert machine.socket_buffers(make(files)).state == state


@pytest.mark.parametrize(
    ("limit", "uid", "state"), [(-1, 1000, "ok"), (65536, 1000, "slower"), (65536, 0, "ok")]
)
def test_locked_memory(make: Make, limit: int, uid: int, state: str) -> None:
    assert machine.locked_memory(make(uid=uid), limit).state == state


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ],
)
def test_what_stands_in_the_way_of_user_namespaces(make: Make, name: str, value: str, mend: str) -> None:
    fails = {"user-namespace": DENIED}
    assert namespace.user_namespaces(make(fails=fails)).mend is None
    assert (
        namespace.user_namespaces(make({f"proc/sys/{name}": value}, fails=fails)).mend
        == f"sudo sysctl -w {mend}"
    )
    assert namespace.user_namespaces(make({f"proc/sys/{name}": value})).state == "ok"


def test_network_namespaces(make: Make) -> None:
    fails = {"network-namespace": DENIED}
    assert namespace.network_namespaces(make(uid=0)).state == "ok"
    assert namespace.network_namespaces(make(uid=0, fails=fails)).state == "missing"
    assert namespace.network_namespaces(make(fails=fails)).state == "ok"  # they have user namespaces


def test_taps(make: Make) -> None:
    def of(number: int, step: str) -> Finding:
        return tap.taps(make({"dev/net/tun": ""}, fails={"tap": Trial(number, step)}))

    assert tap.taps(make(fails={"tap": Trial(errno.ENOENT, "opening")})).mend == "sudo modprobe tun"
    assert of(errno.ENODEV, "opening /dev/net/tun").mend == "sudo modprobe tun"
    assert of(errno.EACCES, "opening /dev/net/tun").mend == "sudo chmod 0666 /dev/net/tun"
    assert of(errno.EPERM, "making a tap").found == "making a tap: Operation not permitted"
    assert tap.tap_offloads(make(fails={"tap-offloads": DENIED})).state == "slower"
    assert tap.tap_offloads(make(fails={"tap-offloads": DENIED, "tap": DENIED})).state == "missing"


def test_packet_sockets(make: Make) -> None:
    none = {"af-packet": Trial(errno.EAFNOSUPPORT, "opening")}
    assert packet.af_packet(make()).state == "ok"
    assert packet.af_packet(make(fails={"af-packet": DENIED})).mend == "sudo -s"
    assert packet.af_packet(make(fails={"af-packet": DENIED}, uid=0)).mend is None
    assert packet.af_packet(make(fails=none)).mend == "sudo modprobe af_packet"


def test_af_xdp(make: Make) -> None:
    assert network.af_xdp(make()).state == "ok"
    for number, found in ((errno.EPERM, "no permission"), (errno.EAFNOSUPPORT, "not in this kernel")):
        finding = network.af_xdp(make(fails={"af-xdp": Trial(number, "opening")}))
        assert (finding.state, finding.found, finding.mend) == ("missing", found, None)


def test_kvm(make: Make) -> None:
    absent = machines.kvm(make({"proc/cpuinfo": "vendor_id : AuthenticAMD"}, fails={"kvm": DENIED}))
    assert absent.mend == "sudo modprobe kvm_amd"
    assert machines.kvm(make({"dev/kvm": ""}, fails={"kvm": DENIED})).mend == "sudo usermod -aG kvm $USER"
    assert machines.kvm(make()).state == "ok"


def test_programs(make: Make) -> None:
    missing = {finding.subject: finding.mend for finding in programs.tools(make())}
    assert missing["ping"] == "sudo apt-get install iputils-ping"
    assert set(missing) == {"ip", "ping", "iperf3", "curl", "tshark", "wireshark"}
    there = machines.qemu(make(has={"qemu-system-x86_64"}, says="QEMU emulator version 7.2.9 (Debian)\n"))
    assert (there.state, there.found) == ("ok", "7.2.9")
    assert machines.qemu(make()).mend == "sudo apt-get install qemu-system-x86"


def test_another_package_manager(make: Make) -> None:
    def fedora(name: str) -> str | None:
        return "/usr/bin/dnf" if name == "dnf" else None

    assert machines.qemu(replace(make(), which=fedora)).mend == "sudo dnf install qemu-system-x86-core"
    assert "Debian calls dpdk-dev" in str(machines.testpmd(replace(make(), which=lambda name: None)).mend)


def test_the_version_of_dpdk_is_that_of_its_library(make: Make) -> None:
    assert machines.testpmd(make()).state == "missing"
    assert machines.testpmd(make(has={"dpdk-testpmd"})).found == "dpdk-testpmd"
    library = {"usr/lib/x86_64-linux-gnu/pkgconfig/libdpdk.pc": "Name: DPDK\nVersion: 22.11.3\n"}
    assert machines.testpmd(make(library, has={"dpdk-testpmd"})).found == "22.11.3"


def test_a_program_without_a_version_is_there(make: Make) -> None:
    assert programs.tool(make(has={"ip"}, says=None), "ip", "iproute2", "-V", "looking").found == "there"


@pytest.mark.parametrize(("text", "numbers"), [("0-3,8", {0, 1, 2, 3, 8}), ("", set()), ("5", {5})])
def test_ranges(text: str, numbers: set[int]) -> None:
    assert integers_of(text) == numbers
    assert ranges_of(frozenset(numbers)) == text
