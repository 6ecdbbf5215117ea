from typing import Any

import numpy as np
import numpy.typing as npt

from cdna.memory import Memory
from cdna.nic.engine_thread import EngineThread
from cdna.nic.wire import Wire

VECTORS: int
LEARN_AGE: float
LEARN_HOLD: float

class Nic(EngineThread):
    memory: Memory
    wire: Wire
    contexts: int
    max_ring: int
    moderation: tuple[int, float]
    def __init__(
        self,
        memory: Memory,
        wire: Wire,
        contexts: int = 32,
        *,
        max_ring: int = 1024,
        interrupt_frames: int = 64,
        interrupt_us: float = 20.0,
    ) -> None: ...
    def configure(
        self,
        index: int,
        *,
        owner: int,
        protection: int,
        mac: bytes,
        tx_ring: int,
        rx_ring: int,
        seq_modulus: int,
        io_pages: int,
        polled: bool,
        vnet_header: bool = False,
        vlan: int = 0,
    ) -> None: ...
    def mac_taken(self, mac: bytes, vlan: int = ...) -> bool: ...
    def start(self, index: int) -> None: ...
    def revive(self, index: int) -> None: ...
    def release(self, index: int) -> None: ...
    def halt(self, index: int) -> None: ...
    def set_learning(self, age: float, hold: float) -> None: ...
    def learned(self, index: int) -> list[tuple[bytes, int]]: ...
    def set_option(self, index: int, name: str, value: object) -> None: ...
    def info(self, index: int) -> dict[str, Any]: ...
    def stats(self, index: int) -> dict[str, int]: ...
    def page_view(self, index: int) -> npt.NDArray[np.uint8]: ...
    def rings_view(self, index: int) -> npt.NDArray[np.uint8]: ...
    def export(self, index: int, writable_rings: bool) -> tuple[int, int]: ...
