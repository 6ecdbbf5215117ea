from typing import NamedTuple

from cdna.nic.pcapng import PcapngWriter

class CaptureRecord(NamedTuple):
    interface: str
    context: int
    direction: int
    reason: int
    comment: str
    timestamp_ns: int
    length: int
    data: bytes

class InterfaceCount(NamedTuple):
    interface: int
    written: int
    lost: int

class CaptureReader:
    frames: int
    def __init__(self, fd: int, *, snaplen: int = 0) -> None: ...
    @property
    def lost(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def produced(self) -> int: ...
    @property
    def consumed(self) -> int: ...
    def counts(self) -> list[InterfaceCount]: ...
    def transfer(self, writer: PcapngWriter, limit: int = 0) -> int: ...
    def read(self, limit: int = 1024) -> list[CaptureRecord]: ...
