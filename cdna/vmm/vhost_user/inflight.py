"""The area in which a backend notes what it has begun, kept by the frontend while the backend is restarted.

One region a queue, each of 64-byte lines, one after the other ("Inflight I/O tracking"):

    +------------------+---------------------------+
    | head, 16 or 32   | an entry a descriptor     |      split: 16 bytes each, packed: 32
    +------------------+---------------------------+
"""

from __future__ import annotations

import os

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.virtio import VirtioLimits

LINE = 64
SPLIT_ENTRY = 16  # bytes; of the head, too
PACKED_ENTRY = 32
AREAS = 64  # at once; a frontend asks for one when it attaches
AREA_EVERY = 60.0  # seconds


class Areas:
    """Counts the areas that were made for one guest, over all of its connections.

    The frontend gets each as a memory file, whose inode the server pays for as long as the frontend keeps it,
    and the server does not hear when it is closed. So there is one more a minute, and AREAS after a pause.
    """

    def __init__(self) -> None:
        self.made = 0
        self._left = float(AREAS)
        self._counted = 0.0

    def take(self, now: float) -> None:
        """Counts one more. ConfigError: there are too many. now: seconds."""
        self._left = min(AREAS, self._left + (now - self._counted) / AREA_EVERY)
        self._counted = now
        if broken(Control.CHECK_INFLIGHT_AREAS, self._left < 1):
            raise ConfigError(
                f"{AREAS} inflight areas were asked for, and this is one more; there is one every "
                f"{AREA_EVERY:.0f} seconds"
            )
        self._left -= 1
        self.made += 1


def area_size(queues: int, queue_size: int, packed: bool) -> int:
    """Bytes for so many queues."""
    entry = PACKED_ENTRY if packed else SPLIT_ENTRY
    region = entry * (1 + queue_size)
    return queues * -(-region // LINE) * LINE


def check_shape(queues: int, queue_size: int, most: int) -> None:
    """ConfigError: no area of a device with `most` queues."""
    fits = 1 <= queues <= most and 1 <= queue_size <= VirtioLimits.VIRTIO_MAX_RING
    if broken(Control.CHECK_INFLIGHT_SHAPE, not fits):
        raise ConfigError(
            f"an inflight area of {queues} queues of {queue_size}: this device has {most}, of up to "
            f"{VirtioLimits.VIRTIO_MAX_RING}"
        )


def make_area(size: int) -> int:
    """A memory file of zeros, the caller's."""
    fd = os.memfd_create("cdna-inflight", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd
