"""Programs beside this one: virtual machines, DPDK, and what tests and the tutorial use."""

import errno
import re

from cdna.doctor.finding import Finding
from cdna.doctor.host import Host

# Program, its package in Debian, the option that prints its version, what it is for.
TOOLS = (
    ("ip", "iproute2", "-V", "looking at devices and addresses by hand"),
    ("ping", "iputils-ping", "-V", "the tutorial, latency tests and figures"),
    ("iperf3", "iperf3", "--version", "throughput tests and figures"),
    ("curl", "curl", "--version", "the tutorial and file transfer tests"),
    ("tshark", "tshark", "--version", "tests that a capture opens"),
    ("wireshark", "wireshark", "--version", "contexts as interfaces of its own, by the extcap"),
)
MACHINES = "for virtual machines as guests (cdna serve, cdna compare --guest vm)"
PROGRAMS = "for DPDK programs as guests (cdna serve)"
EMULATED = "QEMU emulates virtual machines (-accel tcg), many times slower; cdna qemu --tcg attaches them"


def kvm(host: Host) -> Finding:
    trial = host.trial("kvm")
    if trial.works:
        return Finding("KVM", "ok", "/dev/kvm", MACHINES)
    if not host.exists("dev/kvm"):
        vendor = "amd" if "AuthenticAMD" in (host.read("proc/cpuinfo") or "") else "intel"
        return Finding(
            "KVM",
            "missing",
            "no /dev/kvm",
            f"{EMULATED}; in a virtual machine, its host must allow nesting",
            host.as_root(f"modprobe kvm_{vendor}"),
        )
    denied = trial.errno in (errno.EPERM, errno.EACCES)
    return Finding(
        "KVM",
        "missing",
        "no permission" if denied else trial.reason,
        EMULATED,
        "sudo usermod -aG kvm $USER" if denied else None,
    )


def qemu(host: Host) -> Finding:
    name = "qemu-system-x86_64"
    if host.which(name) is None:
        return Finding("QEMU", "missing", name, MACHINES, host.install("qemu-system-x86"))
    return Finding("QEMU", "ok", _version(host, name, "--version"), MACHINES)


def testpmd(host: Host) -> Finding:
    """testpmd tells its version only after it has taken its memory, so its package is asked."""
    name = next((name for name in ("dpdk-testpmd", "testpmd") if host.which(name)), None)
    if name is None:
        return Finding("DPDK", "missing", "dpdk-testpmd", PROGRAMS, host.install("dpdk-dev"))
    files = sorted(host.root.glob("usr/lib*/**/pkgconfig/libdpdk.pc"))
    text = files[0].read_text(errors="replace") if files else ""
    version = re.search(r"^Version:\s*(\S+)", text, re.MULTILINE)
    return Finding("DPDK", "ok", version[1] if version else name, PROGRAMS)


def tools(host: Host) -> list[Finding]:
    return [tool(host, *known) for known in TOOLS]


def tool(host: Host, name: str, package: str, version: str, purpose: str) -> Finding:
    if host.which(name) is None:
        return Finding(name, "missing", "not found", f"for {purpose}", host.install(package))
    return Finding(name, "ok", _version(host, name, version), f"for {purpose}")


def _version(host: Host, name: str, option: str) -> str:
    """The first thing in a program's answer that looks like a version."""
    text = host.output([name, option])
    found = re.search(r"\d+(\.\d+)+[\w.-]*|\b\d{8}\b", text or "")
    return found[0].rstrip(".-") if found else "there"
