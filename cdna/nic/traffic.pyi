import enum
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

class FrameError(enum.IntFlag):
    FRAME_OK = 0
    FRAME_FLOW = 1
    FRAME_SEQUENCE = 2
    FRAME_LENGTH = 3
    FRAME_TAIL = 4
    FRAME_HEADER = 5
    FRAME_PAYLOAD = 6

class Load:
    name: str
    def __init__(
        self,
        lengths: Iterable[int],
        payload: Sequence[bytes] | None = None,
        *,
        name: str = "custom",
        verify: bool = False,
    ) -> None: ...
    @classmethod
    def fixed(cls, size: int, *, verify: bool = False) -> Self: ...
    @classmethod
    def imix(cls, *, verify: bool = False) -> Self: ...
    @classmethod
    def capture(cls, path: str | Path, *, verify: bool = False) -> Self: ...
    @classmethod
    def parse(cls, text: str, *, verify: bool = False) -> Self: ...
    @property
    def lengths(self) -> list[int]: ...
    @property
    def max_length(self) -> int: ...
    @property
    def mean_length(self) -> float: ...
    @property
    def verify(self) -> bool: ...
    @verify.setter
    def verify(self, value: bool) -> None: ...
    def write(self, flow: int, seq: int, dst_mac: bytes = ..., src_mac: bytes = ...) -> bytes: ...
    def check(self, frame: bytes, flow: int, seq: int) -> FrameError: ...

def mac_word(mac: bytes) -> int: ...
