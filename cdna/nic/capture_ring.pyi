from enum import IntEnum

from cdna.nic.device import Nic

class CaptureDirection(IntEnum):
    CAPTURE_OUT = 0
    CAPTURE_IN = 1
    CAPTURE_INTERFACE = 254
    CAPTURE_PAD = 255

class CaptureReason(IntEnum):
    CAPTURE_NOT_DROPPED = 0
    CAPTURE_TX_DROP_SPOOF = 1
    CAPTURE_TX_DROP_VLAN = 2
    CAPTURE_TX_DROP_LINK = 3
    CAPTURE_TX_DROP_FILTER = 4
    CAPTURE_RX_DROP_NO_BUFFER = 5
    CAPTURE_RX_DROP_STOPPED = 6
    CAPTURE_TX_DROP_MTU = 7
    CAPTURE_RX_DROP_MTU = 8
    CAPTURE_RX_DROP_LINK = 9
    CAPTURE_RX_DROP_NO_DRIVER = 10
    CAPTURE_TX_DROP_STORM = 11

DEFAULT_SIZE: int
MAX_SIZE: int
MAX_SNAPLEN: int

class CaptureRing:
    nic: Nic
    fd: int
    def __init__(self, nic: Nic, *, size: int = 67108864, snaplen: int = 0) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def snaplen(self) -> int: ...
    @property
    def lost(self) -> int: ...
    def add(self, index: int, name: str, mac: bytes) -> None: ...
    def remove(self, index: int) -> None: ...
    def wants(self, index: int) -> bool: ...
