from enum import IntEnum

from cdna.vmm.tables import Tables

BATCH: int

class Hypercall(IntEnum):
    HYPERCALL_ENQUEUE = 1
    HYPERCALL_MAP = 2
    HYPERCALL_UNMAP = 3
    HYPERCALL_REAP = 4
    HYPERCALL_STATUS = 5

class Served(IntEnum):
    SERVED_NOTHING = 0
    SERVED_HYPERCALL = 1
    SERVED_STATUS = 2
    SERVED_END = 3

class Malformed(Exception): ...

class HypercallBuffer:
    def __init__(self, tables: Tables) -> None: ...
    def serve(self, fd: int, domain: int, context: int) -> int: ...
