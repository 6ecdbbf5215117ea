"""What guests and wires are made of: namespaces, taps, packet sockets."""

import errno

from cdna.doctor.finding import Finding
from cdna.doctor.host import Host

# What keeps an ordinary user from a user namespace, where the kernel or the distribution says so.
_USERNS_SWITCHES = (
    (
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone=1"),
    ("proc/sys/user/max_user_namespaces", "user.max_user_namespaces=15000"),
)


def network_namespaces(host: Host) -> Finding:
    """As root. For others see `user_namespaces`."""
    if host.uid != 0:
        return Finding(
            "network namespaces",
            "ok",
            "not root",
            "guests get theirs through user namespaces; a wire that uses the host's network wants sudo",
        )
    trial = host.trial("network-namespace")
    if trial.works:
        return Finding("network namespaces", "ok", "as root", "guests that run real programs: cdna up")
    return Finding(
        "network namespaces",
        "missing",
        trial.reason,
        "no cdna up as root here; in a container, add the capability SYS_ADMIN",
    )


def user_namespaces(host: Host) -> Finding:
    trial = host.trial("user-namespace")
    if trial.works:
        return Finding("user namespaces", "ok", "for every user", "cdna up without root")
    switch = next((text for path, text in _USERNS_SWITCHES if _stands_in_the_way(host, path)), None)
    return Finding(
        "user namespaces",
        "missing",
        trial.reason,
        "cdna up and pytest guests with a network of their own need root",
        None if switch is None else host.as_root(f"sysctl -w {switch}"),
    )


def _stands_in_the_way(host: Host, path: str) -> bool:
    value = host.integer(path)
    return value is not None and (value != 0) == path.endswith("restrict_unprivileged_userns")


def taps(host: Host) -> Finding:
    meaning = "no guest with a network stack and no tap wire"
    trial = host.trial("tap")
    if trial.works:
        return Finding("taps", "ok", "made one", "guests' devices, and the wire tap:NAME")
    if not host.exists("dev/net/tun") or trial.errno in (errno.ENODEV, errno.ENXIO):
        return Finding("taps", "missing", "no /dev/net/tun", meaning, host.as_root("modprobe tun"))
    mend = host.as_root("chmod 0666 /dev/net/tun") if trial.step == "opening /dev/net/tun" else None
    return Finding("taps", "missing", trial.reason, meaning, mend)


def tap_offloads(host: Host) -> Finding:
    trial = host.trial("tap-offloads")
    if trial.works:
        return Finding(
            "tap offloads", "ok", "checksum, TSO, queues", "TCP passes in pieces of 64 KiB with one checksum"
        )
    if not host.trial("tap").works:
        return Finding("tap offloads", "missing", "no taps", "see taps")
    return Finding(
        "tap offloads", "slower", trial.reason, "every TCP segment passes alone: many times slower"
    )


def af_packet(host: Host) -> Finding:
    trial = host.trial("af-packet")
    if trial.works:
        return Finding("AF_PACKET", "ok", "opened one", "an interface of the host as a wire: packet:NAME")
    meaning = "no wire packet:NAME"
    if trial.errno in (errno.EPERM, errno.EACCES):
        mend = None if host.uid == 0 else "sudo -s"
        meaning = f"{meaning} for this user; everything inside a lab works"
        return Finding("AF_PACKET", "missing", "no permission", meaning, mend)
    if trial.errno == errno.EAFNOSUPPORT:
        mend = host.as_root("modprobe af_packet")
        return Finding("AF_PACKET", "missing", "not in this kernel", meaning, mend)
    return Finding("AF_PACKET", "missing", trial.reason, meaning)


def af_xdp(host: Host) -> Finding:
    """What the kernel can; there is no wire for it yet, so there is nothing to mend."""
    meaning = "no wire uses it so far"
    trial = host.trial("af-xdp")
    if trial.works:
        return Finding("AF_XDP", "ok", "opened one", meaning)
    found = {
        errno.EPERM: "no permission",
        errno.EAFNOSUPPORT: "not in this kernel",
    }.get(trial.errno, trial.reason)
    return Finding("AF_XDP", "missing", found, f"{meaning}: nothing is slower")
