from enum import IntEnum

BATCH: int

class Hypercall(IntEnum):
    HYPERCALL_ENQUEUE = 1
    HYPERCALL_MAP = 2
    HYPERCALL_UNMAP = 3
    HYPERCALL_REAP = 4
    HYPERCALL_STATUS = 5

class Malformed(Exception): ...
