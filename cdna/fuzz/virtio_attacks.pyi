from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from cdna.fuzz.arena import Arena, FuzzWire
from cdna.guest_driver.queues import Queues
from cdna.nic.traffic import Load

ACTION_DTYPE: np.dtype[Any]

class VirtioOp(IntEnum):
    VIRTIO_POST = 0
    VIRTIO_INDEX = 1
    VIRTIO_CHANGE = 2
    VIRTIO_SCRIBBLE = 3
    VIRTIO_DEVICE_AREA = 4
    VIRTIO_RESET = 5
    VIRTIO_MEMORY = 6
    VIRTIO_RECONNECT = 7
    VIRTIO_POLL = 8
    VIRTIO_OPS = 9
    VIRTIO_PLANT = 10

class VirtioAttacks(Arena):
    def __init__(
        self,
        machine: Any,
        wire: FuzzWire,
        drivers: Sequence[Queues],
        load: Load,
        foreign: list[int],
        *,
        seed: int,
        control: list[Any],
    ) -> None: ...
    def execute(self, steps: np.ndarray) -> int: ...
    def finish(self) -> bool: ...

def generate(seed: int, n: int) -> np.ndarray: ...
def table_offset(size: int) -> int: ...
def ring_bytes(size: int) -> int: ...
def device_offset(size: int) -> int: ...
def sizes(size: int) -> tuple[int, int, int]: ...
