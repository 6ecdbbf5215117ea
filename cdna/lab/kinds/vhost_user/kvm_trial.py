"""Whether this process may use /dev/kvm (`cdna.extend.trial`)."""

import fcntl
import os

from cdna.extend.trial import step

KVM_GET_API_VERSION = 0xAE00


def kvm() -> None:
    with step("opening /dev/kvm"):
        fd = os.open("/dev/kvm", os.O_RDWR)
    with step("asking for its version"):
        fcntl.ioctl(fd, KVM_GET_API_VERSION)
