from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from cdna.fuzz.arena import Arena, FuzzWire
from cdna.guest_driver.queues import Queues
from cdna.nic.traffic import Load

ACTION_DTYPE: np.dtype[Any]

class NativeOp(IntEnum):
    NATIVE_POST = 0
    NATIVE_DUPLICATE = 1
    NATIVE_MAILBOX = 2
    NATIVE_REPLAY = 3
    NATIVE_CHANGE = 4
    NATIVE_STRAY = 5
    NATIVE_MAP = 6
    NATIVE_UNMAP = 7
    NATIVE_GIVE = 8
    NATIVE_TAKE = 9
    NATIVE_FOREIGN = 10
    NATIVE_SCRIBBLE = 11
    NATIVE_REVOKE = 12
    NATIVE_REASSIGN = 13
    NATIVE_POLL = 14
    NATIVE_OPS = 15
    NATIVE_PLANT = 16

class Plant(IntEnum):
    PLANT_PAGE = 0
    PLANT_PIN = 1
    PLANT_UNPIN = 2
    PLANT_LOSS = 3

class NativeAttacks(Arena):
    def __init__(
        self,
        machine: Any,
        wire: FuzzWire,
        drivers: Sequence[Queues],
        load: Load,
        foreign: list[int],
        *,
        seed: int,
        contexts: list[Any],
        victim: int,
    ) -> None: ...
    def execute(self, steps: np.ndarray) -> int: ...
    def finish(self) -> bool: ...

def generate(seed: int, n: int) -> np.ndarray: ...
