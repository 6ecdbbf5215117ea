"""Tries out what only trying tells, and prints an errno (0: works) and the step that failed.

    python -I -S trial.py NAME

A process of its own: namespaces are entered for good, and all that was made goes away with the process. It
imports nothing but the standard library, so that it has one thread (unshare(CLONE_NEWUSER) wants that).
"""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
IFF_UP = 0x1
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8  # linux/if_tun.h
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
VNET_HEADER_BYTES = 12  # struct virtio_net_hdr_mrg_rxbuf
AF_XDP = 44
SOL_PACKET, PACKET_VERSION, PACKET_VNET_HDR, TPACKET_V2 = 263, 10, 15, 1  # linux/if_packet.h
F_ADD_SEALS, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE = 1033, 0x2, 0x4, 0x10  # linux/fcntl.h
SYS_LANDLOCK_CREATE_RULESET, LANDLOCK_VERSION = 444, 1  # linux/landlock.h
SYS_IO_URING_SETUP = 425  # the same number on every architecture since Linux 5.1
KVM_GET_API_VERSION = 0xAE00
NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)
_step = ""


@contextmanager
def step(name: str) -> Iterator[None]:
    global _step
    _step = name
    yield


def check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def use_loopback() -> None:
    """Sets the new namespace's loopback device up, which shows that its administrator is us."""
    with step("setting a device up"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def network_namespace() -> None:
    with step("making a network namespace"):
        check(_libc.unshare(CLONE_NEWNET))
    use_loopback()


def user_namespace() -> None:
    """As an ordinary user would, also when this is root."""
    if os.getuid() == 0:
        with step("becoming an ordinary user"):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            check(_libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE: /proc/self is ours again
    uid = os.getuid()
    with step("making a user namespace"):
        check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    with step("mapping a user into it"), open("/proc/self/uid_map", "w") as uid_map:
        uid_map.write(f"0 {uid} 1")
    use_loopback()


def private_network() -> None:
    network_namespace() if os.geteuid() == 0 else user_namespace()


def make_tap(flags: int) -> int:
    with step("opening /dev/net/tun"):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    with step("making a tap"):
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"trial", IFF_TAP | IFF_NO_PI | flags))
    return fd


def tap() -> None:
    private_network()
    make_tap(0)


def tap_offloads() -> None:
    private_network()
    fd = make_tap(IFF_VNET_HDR | IFF_MULTI_QUEUE)
    with step("setting the virtio-net header"):
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
    with step("setting offloads"):
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)


def af_packet() -> None:
    with step("opening AF_PACKET"):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with step("asking for mapped rings"), sock:
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)


def af_xdp() -> None:
    with step("opening AF_XDP"):
        socket.socket(AF_XDP, socket.SOCK_RAW, 0).close()


def memfd_seal() -> None:
    with step("making a memory file"):
        fd = os.memfd_create("trial", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(fd, mmap.PAGESIZE)
    with step("sealing it"):
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)
    with step("trusting the seal"):
        try:
            mmap.mmap(fd, mmap.PAGESIZE)
        except PermissionError:
            return
        raise OSError(errno.EBADE, "")


def libseccomp() -> None:
    with step("loading libseccomp"):
        ctypes.CDLL("libseccomp.so.2")


def landlock() -> None:
    with step("asking for Landlock"):
        check(_libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_VERSION))


def io_uring() -> None:
    with step("setting up io_uring"):
        check(_libc.syscall(SYS_IO_URING_SETUP, 4, ctypes.create_string_buffer(120)))  # io_uring_params


def kvm() -> None:
    with step("opening /dev/kvm"):
        fd = os.open("/dev/kvm", os.O_RDWR)
    with step("asking for its version"):
        fcntl.ioctl(fd, KVM_GET_API_VERSION)


TRIALS: dict[str, Callable[[], None]] = {
    trial.__name__.replace("_", "-"): trial
    for trial in (
        network_namespace,
        user_namespace,
        tap,
        tap_offloads,
        af_packet,
        af_xdp,
        memfd_seal,
        libseccomp,
        landlock,
        io_uring,
        kvm,
    )
}


def main(name: str) -> None:
    try:
        TRIALS[name]()
    except OSError as error:
        print(error.errno or errno.EIO, _step)
    else:
        print(0)


if __name__ == "__main__":
    main(sys.argv[1])
