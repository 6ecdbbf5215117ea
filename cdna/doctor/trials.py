"""What the checks of the machine itself try out (`cdna.extend.trial`)."""

import ctypes
import errno
import fcntl
import mmap
import os
import socket

from cdna.extend.trial import check, libc, step

AF_XDP = 44
F_ADD_SEALS, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE = 1033, 0x2, 0x4, 0x10  # linux/fcntl.h
SYS_LANDLOCK_CREATE_RULESET, LANDLOCK_VERSION = 444, 1  # linux/landlock.h
SYS_IO_URING_SETUP = 425  # the same number on every architecture since Linux 5.1


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
        check(libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_VERSION))


def io_uring() -> None:
    with step("setting up io_uring"):
        check(libc.syscall(SYS_IO_URING_SETUP, 4, ctypes.create_string_buffer(120)))  # io_uring_params
