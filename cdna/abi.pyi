from enum import IntEnum
from typing import Any

import numpy as np

class Limits(IntEnum):
    MAX_CONTEXTS = 4096
    MIN_RING = 8
    MAX_RING = 32768
    MAX_FRAME = 9018
    MIN_FRAME = 14
    MAX_TSO_FRAME = 65553
    VNET_HEADER = 12
    MAX_FRAGMENTS = 32
    IO_PAGES_PER_SLOT = 4

class Mailbox(IntEnum):
    MAILBOX_TX_PRODUCER = 0
    MAILBOX_RX_PRODUCER = 1
    MAILBOX_INTERRUPT_ENABLE = 2

class DescFlag(IntEnum):
    DESC_F_EOP = 1
    DESC_F_OFFLOAD = 2

class OffloadKind(IntEnum):
    OFFLOAD_TCP = 0
    OFFLOAD_UDP_SEGMENTS = 0x4000
    OFFLOAD_UDP_FRAGMENTS = 0x8000
    OFFLOAD_KIND = 0xC000

class CompletionFlag(IntEnum):
    COMPLETION_F_EOP = 1
    COMPLETION_F_CSUM_OK = 2

class VnetFlag(IntEnum):
    VNET_F_NEEDS_CSUM = 1
    VNET_F_DATA_VALID = 2

class VnetGso(IntEnum):
    VNET_GSO_NONE = 0
    VNET_GSO_TCPV4 = 1
    VNET_GSO_UDP = 3
    VNET_GSO_TCPV6 = 4
    VNET_GSO_UDP_L4 = 5
    VNET_GSO_ECN = 0x80

class Takes(IntEnum):
    TAKES_CSUM = 1
    TAKES_TSO4 = 2
    TAKES_TSO6 = 4
    TAKES_ECN = 8
    TAKES_UFO = 16
    TAKES_USO4 = 32
    TAKES_USO6 = 64

class Ring(IntEnum):
    RING_TX = 0
    RING_RX = 1
    RING_CONTROL = 2

class Protection(IntEnum):
    PROTECTION_VALIDATED = 0
    PROTECTION_IOMMU = 1
    PROTECTION_NONE = 2
    PROTECTION_TABLE = 3

class IommuStrategy(IntEnum):
    IOMMU_SINGLE_USE = 0
    IOMMU_SHARED = 1
    IOMMU_PERSISTENT = 2
    IOMMU_DIRECT_MAP = 3

class ContextState(IntEnum):
    CONTEXT_FREE = 0
    CONTEXT_ASSIGNED = 1
    CONTEXT_RUNNING = 2
    CONTEXT_FAULTED = 3

class Fault(IntEnum):
    FAULT_NONE = 0
    FAULT_SEQUENCE = 1
    FAULT_PRODUCER = 2
    FAULT_LENGTH = 3
    FAULT_FLAGS = 4
    FAULT_FRAGMENTS = 5
    FAULT_OFFLOAD = 6
    FAULT_ADDRESS = 7
    FAULT_TRANSLATION = 8
    FAULT_AVAIL = 9
    FAULT_CHAIN = 10
    FAULT_INDIRECT = 11
    FAULT_DIRECTION = 12
    FAULT_HEADER = 13
    FAULT_MEMORY = 14
    FAULT_MEMORY_GONE = 15

class Refusal(IntEnum):
    REFUSED_CONTEXT = -1
    REFUSED_OWNER = -2
    REFUSED_ADDRESS = -3
    REFUSED_LENGTH = -4
    REFUSED_FLAGS = -5
    REFUSED_RING_FULL = -6
    REFUSED_PINNED = -7
    REFUSED_MODE = -8
    REFUSED_MAPPED = -9

DESC_DTYPE: np.dtype[Any]
COMPLETION_DTYPE: np.dtype[Any]
OFFLOAD_DTYPE: np.dtype[Any]
VNET_HEADER_DTYPE: np.dtype[Any]
CONTEXT_PAGE_DTYPE: np.dtype[Any]

def struct_dtype(layout: object) -> np.dtype[Any]: ...

PAGE_BYTES: int
MAILBOX_COUNT: int
