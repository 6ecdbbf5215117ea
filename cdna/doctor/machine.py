"""The machine itself: kernel, cores, memory, and this package."""

import resource
from importlib.machinery import EXTENSION_SUFFIXES

from cdna.doctor import trials
from cdna.extend.finding import Finding
from cdna.extend.host import Host, integers_of, ranges_of

OLDEST_KERNEL = (5, 1)  # F_SEAL_FUTURE_WRITE, which keeps a guest of another process out of its rings
SOCKET_BUFFER = 4 << 20  # bytes; holds a burst of a few thousand frames
LOCKED = 64 << 20  # bytes; what a small DPDK program locks
_CPU = "sys/devices/system/cpu"


def kernel(host: Host) -> Finding:
    release = host.read("proc/sys/kernel/osrelease") or "unknown"
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST_KERNEL:
        return Finding(
            "kernel", "missing", release, "too old: guests in other processes and namespaces need Linux 5.1"
        )
    return Finding("kernel", "ok", release, "new enough for every kind of guest")


def modules(host: Host) -> Finding:
    """Every interface of a compiled module has its body beside it."""
    wanted = sorted(path.relative_to(host.package) for path in host.package.rglob("*.pyi"))
    absent = [
        path
        for path in wanted
        if not any((host.package / path).with_suffix(suffix).is_file() for suffix in EXTENSION_SUFFIXES)
    ]
    if not absent:
        return Finding("compiled modules", "ok", f"all {len(wanted)}", "the data path is there")
    name = ".".join(["cdna", *absent[0].with_suffix("").parts])
    others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    source = (host.package.parent / "Makefile").is_file()
    return Finding(
        "compiled modules",
        "missing",
        f"{len(absent)} of {len(wanted)} not there",
        f"{name}{others} cannot be imported",
        "make build" if source else "pip install --force-reinstall cdna",
    )


def cores(host: Host) -> Finding:
    """Cores that this process may use; hardware threads of one core count as one."""
    online = integers_of(host.read(f"{_CPU}/online")) or host.affinity
    there = {min(_threads(host, cpu)) for cpu in online}
    usable = {min(_threads(host, cpu)) for cpu in host.affinity}
    found = f"{len(usable)} of {len(there)}, CPU {ranges_of(host.affinity)}"
    if len(usable) >= 2:
        return Finding("cores", "ok", found, "the NIC has a core to itself while guests use another")
    meaning = "the NIC and the guests take turns on one core: rates and comparisons mean little"
    if host.affinity < online:
        return Finding("cores", "slower", found, meaning, f"taskset -p -c {ranges_of(online)} $$")
    return Finding("cores", "slower", found, f"{meaning}; give this machine a second core")


def _threads(host: Host, cpu: int) -> frozenset[int]:
    listed = integers_of(host.read(f"{_CPU}/cpu{cpu}/topology/thread_siblings_list"))
    return listed | {cpu}


def smt(host: Host) -> Finding:
    shared = [cpu for cpu in sorted(host.affinity) if len(_threads(host, cpu)) > 1]
    if not shared:
        return Finding("hardware threads", "ok", "one a core", "the NIC shares its core with nobody")
    return Finding(
        "hardware threads",
        "slower",
        f"{len(_threads(host, shared[0]))} a core",
        "what runs on the other thread of the NIC's core takes some of its speed; figures spread more",
        host.as_root("sh -c 'echo off > /sys/devices/system/cpu/smt/control'"),
    )


def isolated(host: Host) -> Finding:
    """Not a fault where there are none: only who measures wants them."""
    cpus = integers_of(host.read(f"{_CPU}/isolated"))
    if cpus:
        return Finding("isolated cores", "ok", f"CPU {ranges_of(cpus)}", "for the NIC: give one with --cpu")
    return Finding(
        "isolated cores",
        "ok",
        "none",
        "other programs may take turns on the NIC's core; for steady figures boot with isolcpus=",
    )


def governor(host: Host) -> Finding:
    names = {
        name
        for cpu in host.affinity
        if (name := host.read(f"{_CPU}/cpu{cpu}/cpufreq/scaling_governor")) is not None
    }
    found = ", ".join(sorted(names)) or "none"
    if not names or names == {"performance"}:
        return Finding("frequency governor", "ok", found, "cores keep their frequency")
    return Finding(
        "frequency governor",
        "slower",
        found,
        "cores change their frequency while something is measured",
        host.as_root("cpupower frequency-set -g performance"),
    )


def huge_pages(host: Host) -> Finding:
    facts = dict(line.split(":", 1) for line in (host.read("proc/meminfo") or "").splitlines() if ":" in line)
    free = int(facts.get("HugePages_Free", "0"))
    size = facts.get("Hugepagesize", "2048 kB").strip()
    if free:
        return Finding(
            "huge pages",
            "ok",
            f"{free} free of {size}",
            "for DPDK programs as guests (cdna serve)",
        )
    return Finding(
        "huge pages",
        "slower",
        "none free",
        "DPDK programs as guests run faster with them; --no-huge is without",
        host.as_root("sysctl -w vm.nr_hugepages=256"),
    )


def sealing(host: Host) -> Finding:
    trial = host.trial(trials.memfd_seal)
    if trial.works:
        return Finding("memory sealing", "ok", "works", "guests may be processes of their own")
    return Finding(
        "memory sealing",
        "missing",
        trial.reason,
        "guests in other processes are refused: their rings could not be made read-only for them",
    )


def sandbox(host: Host) -> Finding:
    """What `cdna serve` confines itself with."""
    library, landlock = host.trial(trials.libseccomp), host.trial(trials.landlock)
    kills = "kill_process" in (host.read("proc/sys/kernel/seccomp/actions_avail") or "")
    there = [
        name
        for name, is_there in (("seccomp", kills and library.works), ("Landlock", landlock.works))
        if is_there
    ]
    if len(there) == 2:
        return Finding("sandbox", "ok", " and ".join(there), "a server keeps to what it needs, or ends")
    lost = "a server does without" + (
        " and says so" if there else ", says so, and is confined by its user alone"
    )
    if kills and not library.works:
        return Finding(
            "sandbox", "missing", "no libseccomp", f"seccomp needs it; {lost}", host.install("libseccomp2")
        )
    found = f"{there[0]} alone" if there else "neither seccomp nor Landlock"
    return Finding(
        "sandbox", "missing", found, f"not in this kernel, or not turned on when it was booted; {lost}"
    )


def io_uring(host: Host) -> Finding:
    trial = host.trial(trials.io_uring)
    if trial.works:
        return Finding("io_uring", "ok", "works", "no wire uses it so far")
    disabled = (host.integer("proc/sys/kernel/io_uring_disabled") or 0) > 0
    return Finding(
        "io_uring",
        "missing",
        "disabled" if disabled else trial.reason,
        "no wire uses it so far: nothing is slower",
        host.as_root("sysctl -w kernel.io_uring_disabled=0") if disabled else None,
    )


def socket_buffers(host: Host) -> Finding:
    path = "proc/sys/net/core/rmem_max"
    most = host.integer(path)
    if most is None:
        return Finding("socket buffers", "ok", "not told", "the kernel's limit is not visible here")
    found = f"at most {_size(most)}"
    if most >= SOCKET_BUFFER:
        return Finding("socket buffers", "ok", found, "a burst of datagrams fits a receiver's buffer")
    return Finding(
        "socket buffers",
        "slower",
        found,
        "receivers lose datagrams of a burst, whatever the NIC delivers",
        host.as_root(f"sysctl -w net.core.rmem_max={2 * SOCKET_BUFFER}"),
    )


def locked_memory(host: Host, limit: int | None = None) -> Finding:
    """limit: bytes, -1: none; by default this process's own."""
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] if limit is None else limit
    if host.uid == 0 or soft == resource.RLIM_INFINITY:
        found = "any amount" if soft == resource.RLIM_INFINITY else f"{_size(soft)}, not for root"
        return Finding("locked memory", "ok", found, "enough for whatever locks its memory")
    if soft >= LOCKED:
        return Finding("locked memory", "ok", _size(soft), "enough for whatever locks its memory")
    return Finding(
        "locked memory",
        "slower",
        f"at most {_size(soft)}",
        "programs that lock their memory, such as DPDK's, are refused; nothing here does so far",
        f"sudo prlimit --pid $$ --memlock={LOCKED}",
    )


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} GiB"
