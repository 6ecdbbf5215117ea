"""What virtual machines and DPDK programs need of this machine."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from cdna.extend.finding import Finding
from cdna.lab.kinds.vhost_user import kvm_trial

if TYPE_CHECKING:
    from cdna.extend.host import Host

MACHINES = "for virtual machines as guests (cdna serve, cdna compare --guest vm)"
PROGRAMS = "for DPDK programs as guests (cdna serve)"
EMULATED = "QEMU emulates virtual machines (-accel tcg), many times slower; cdna qemu --tcg attaches them"


def kvm(host: Host) -> Finding:
    trial = host.trial(kvm_trial.kvm)
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
    return Finding("QEMU", "ok", host.version(name, "--version"), MACHINES)


def testpmd(host: Host) -> Finding:
    """testpmd tells its version only after it has taken its memory, so its package is asked."""
    name = next((name for name in ("dpdk-testpmd", "testpmd") if host.which(name)), None)
    if name is None:
        return Finding("DPDK", "missing", "dpdk-testpmd", PROGRAMS, host.install("dpdk-dev"))
    files = sorted(host.root.glob("usr/lib*/**/pkgconfig/libdpdk.pc"))
    text = files[0].read_text(errors="replace") if files else ""
    version = re.search(r"^Version:\s*(\S+)", text, re.MULTILINE)
    return Finding("DPDK", "ok", version[1] if version else name, PROGRAMS)
