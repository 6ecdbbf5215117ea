from cdna.guest_driver.queues import Queues
from cdna.vmm.domain import Context

class LocalQueues(Queues):
    def __init__(self, context: Context, buffer_size: int = 2048) -> None: ...
