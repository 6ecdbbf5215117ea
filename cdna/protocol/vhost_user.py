"""The messages of vhost-user: numbers, layouts, and how they are taken apart.

All words have the machine's own byte order. A message:

     0         4       8      12
    +---------+-------+------+---------+
    | request | flags | size | payload |      flags: bits 0-1 the version, which is 1,
    +---------+-------+------+---------+             bit 2 a reply, bit 3 a reply is wanted

Payloads, beside a single u64 (what its bits are, the request says):

    vring state                     vring address
     0       4     8                 0       4       8      16     24      32    40
    +-------+-----+                 +-------+-------+------+------+-------+-----+
    | index | num |                 | index | flags | desc | used | avail | log |
    +-------+-----+                 +-------+-------+------+------+-------+-----+

    memory table                                     memory region
     0       4         8        40                    0            8      16          24       32
    +-------+---------+--------+-----+               +------------+------+-----------+--------+
    | count | padding | region | ... |               | guest addr | size | user addr | offset |
    +-------+---------+--------+-----+               +------------+------+-----------+--------+
    a single region (ADD_MEM_REG, REM_MEM_REG): 8 bytes of padding before it

    log                             inflight area; frontends in C send 4 bytes of padding behind it
     0      8        16              0      8        16       18           20
    +------+--------+               +------+--------+--------+------------+
    | size | offset |               | size | offset | queues | queue size |
    +------+--------+               +------+--------+--------+------------+

    configuration space
     0        4      8       12
    +--------+------+-------+----------------+
    | offset | size | flags | `size` bytes   |
    +--------+------+-------+----------------+
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from cdna.control_checks import Control, broken

HEADER = struct.Struct("=III")
U64 = struct.Struct("=Q")
VRING_STATE = struct.Struct("=II")
VRING_ADDR = struct.Struct("=IIQQQQ")
REGION = struct.Struct("=QQQQ")
TABLE_HEAD = struct.Struct("=II")
SINGLE_REGION = struct.Struct("=8xQQQQ")
LOG = struct.Struct("=QQ")
INFLIGHT = struct.Struct("=QQHH")
CONFIG_HEAD = struct.Struct("=III")

INFLIGHT_PADDED = 24  # bytes of an inflight description as a C compiler lays it out
MAX_REGIONS = 8  # of one SET_MEM_TABLE
MAX_CONFIG = 256  # bytes of configuration space
MAX_PAYLOAD = 1024  # bytes; no message of ours has as many

VERSION = 1
VERSION_MASK = 3
FLAG_REPLY = 4
FLAG_NEED_REPLY = 8

VRING_INDEX_MASK = 0xFF  # of SET_VRING_KICK, _CALL, _ERR
VRING_NO_FD = 0x100
VHOST_VRING_F_LOG = 1  # of SET_VRING_ADDR: writes to the used ring are logged
CONFIG_MIGRATION = 1  # of SET_CONFIG: the state of another machine, not the guest's wish
MAX_STATUS = 0xFF  # virtio's device status is a byte


class Request(IntEnum):
    """What a frontend asks; VHOST_USER_ stands before each name."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class BackendRequest(IntEnum):
    """What a backend asks; VHOST_USER_BACKEND_ stands before each name."""

    CONFIG_CHANGE_MSG = 2


class ProtocolFeature(IntEnum):
    """Bits; VHOST_USER_PROTOCOL_F_ stands before each name."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    NET_MTU = 4
    BACKEND_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    XEN_MMAP = 17
    SHARED_OBJECT = 18
    DEVICE_STATE = 19


class ProtocolError(Exception):
    """The frontend broke the protocol, and its connection ends; the text says what is wrong."""


class Gone(Exception):
    """The frontend has closed its end."""


class Message:
    """One whole message. Who keeps a descriptor that came with it takes it out; the others are discarded."""

    def __init__(self, request: int, flags: int, payload: bytes, fds: list[int]) -> None:
        self.request = request
        self.flags = flags
        self.payload = payload
        self.fds = fds

    @property
    def wants_reply(self) -> bool:
        return bool(self.flags & FLAG_NEED_REPLY)


class VringState(NamedTuple):
    queue: int
    num: int


class VringAddr(NamedTuple):
    queue: int
    flags: int
    desc: int
    used: int
    avail: int
    log: int


class Inflight(NamedTuple):
    size: int
    offset: int
    queues: int
    queue_size: int


class Config(NamedTuple):
    offset: int
    size: int
    flags: int
    data: bytes


def name_of(request: int) -> str:
    """A request's name, as the specification has it but for the prefix."""
    try:
        return Request(request).name
    except ValueError:
        return f"request {request}"


def pack(request: int, flags: int, payload: bytes) -> bytes:
    """A message as it goes over the socket."""
    return HEADER.pack(request, flags, len(payload)) + payload


def u64(payload: bytes) -> int:
    value: int = U64.unpack(payload)[0]
    return value


def regions(payload: bytes) -> list[tuple[int, int, int, int]]:
    """(guest address, size, user address, offset) of each region of a table. ProtocolError: none such.

    Room for further regions may follow: User-Mode Linux always sends room for two.
    """
    count, _ = TABLE_HEAD.unpack_from(payload)
    room, rest = divmod(len(payload) - TABLE_HEAD.size, REGION.size)
    if broken(Control.CHECK_REGIONS_WHOLE, count > min(room, MAX_REGIONS) or rest):
        raise ProtocolError(
            f"{count} regions in {len(payload)} bytes: give up to {MAX_REGIONS} of {REGION.size} bytes each"
        )
    return list(REGION.iter_unpack(payload[TABLE_HEAD.size :]))[:count]


def config(payload: bytes) -> Config:
    """A piece of configuration space. ProtocolError: its size is not that of its data."""
    offset, size, flags = CONFIG_HEAD.unpack_from(payload)
    data = payload[CONFIG_HEAD.size :]
    if broken(Control.CHECK_CONFIG_WHOLE, len(data) != size):
        raise ProtocolError(f"{size} bytes of configuration space announced, {len(data)} given")
    return Config(offset, size, flags, data)
