from enum import IntEnum

from cdna.vmm.tables import Tables

class Served(IntEnum):
    SERVED_NOTHING = 0
    SERVED_HYPERCALL = 1
    SERVED_STATUS = 2
    SERVED_END = 3

class HypercallBuffer:
    def __init__(self, tables: Tables) -> None: ...
    def serve(self, fd: int, domain: int, context: int) -> int: ...
