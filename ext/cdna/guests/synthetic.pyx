"""A synthetic guest as Python sets it up."""
# build: unfuzzed

from cdna.guest_driver.queues cimport Queues
from cdna.memory cimport SharedRegion
from cdna.nic.traffic cimport Load

from cdna.nic.traffic import FrameError, mac_word


cdef class SyntheticGuest:
    """Offers or takes the frames of one flow through a driver.

    flow: id in the stamps. peer: the other end's address, six bytes. own: the guest's.
    """

    def __init__(self, Queues driver, Load load, int flow, bytes own, bytes peer):
        self._region = SharedRegion(sizeof(synthetic_t))
        self.c = <synthetic_t *>self._region.base
        self.driver = driver
        self.load = load
        self.c.driver = &driver.c
        self.c.load = load.c
        self.c.flow = flow
        self.c.src_mac = mac_word(own)
        self.c.dst_mac = mac_word(peer)

    def offer(self, int most=64) -> int:
        """Sends up to `most` frames; returns how many."""
        return offer(self.c, most)

    def take(self, int most=64) -> int:
        """Receives and checks up to `most` frames; returns how many."""
        return take(self.c, most)

    @property
    def sent(self) -> int:
        return self.c.sent

    @property
    def received(self) -> int:
        return self.c.received

    @property
    def bad(self) -> int:
        """Frames received that were not what the flow should have brought."""
        return self.c.bad

    @property
    def first_bad(self):
        """What was wrong with the first of them, one line; None if there is none."""
        if not self.c.bad:
            return None
        return f"flow {self.c.flow}, frame {self.c.bad_seq}: {FrameError(self.c.bad_error).name}"
