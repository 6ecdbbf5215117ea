from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from cdna.guest_driver.queues import Queues
from cdna.nic.traffic import Load
from cdna.nic.wire import Wire

class Finding(IntEnum):
    FOUND_NOTHING = 0
    FOUND_WRITTEN = 1
    FOUND_CARRIED = 2
    FOUND_LOST = 3
    FOUND_SPOOFED = 4
    FOUND_PINS = 5
    FOUND_OWNER = 6
    FOUND_SEQUENCE = 7
    FOUND_GIVEN = 8
    FOUND_LEFT = 9
    FOUND_STATE = 10
    FOUND_AREA = 11

class FuzzWire(Wire):
    def __init__(self) -> None: ...

class Arena:
    machine: Any
    load: Load
    nic: Any
    tables: Any
    def __init__(
        self,
        machine: Any,
        wire: FuzzWire,
        drivers: Sequence[Queues],
        load: Load,
        foreign: list[int],
        *,
        seed: int,
        attackers: int,
    ) -> None: ...
    def finding(self) -> tuple[Finding, int, int, int]: ...
    def counts(self) -> dict[str, Any]: ...
    def check(self) -> bool: ...

def mac_text(kind: int, number: int) -> str: ...
