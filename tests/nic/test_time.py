"""Turns that are worth time: by the engine's own accounts, each context has its share, whatever it does.

The engine is stepped, and what it says of its time is compared with itself, and with no other clock.
"""

import pytest

from cdna.guest_driver.vrings import Buffer
from tests.support.frames import BROADCAST, OUTSIDE, frame
from tests.support.vhost_host import VhostHost, mac

VRING_DESC_F_NEXT = 1  # virtio 1.2, 2.7.5

SLACK = 300_000  # ns: some turns, and one that the clock of another thread made long
NEAR = 0.2  # of a share: what a busy machine makes of it; turns of bytes or frames differ by more than twice
ROUNDS = 3000
HEADER = bytes(12)


@pytest.fixture
def host(tmp_path):
    host = VhostHost(tmp_path)
    yield host
    host.close()


class Sender:
    """A guest that always has the same frame to send, and every receive buffer free again."""

    def __init__(self, host, name, number, to=OUTSIDE, size=1514, ring=256):
        self.guest = host.add(name, number)
        self.attached = host.attach(self.guest, size=ring)
        self.index = self.guest.context.index
        memory, ring = self.attached.memory, self.attached.tx[0]
        to = mac(self.guest) if to is None else to
        data = HEADER + frame(to, mac(self.guest), size=max(size, 60))[:size]
        addr = memory.alloc(len(data))
        memory.write(addr, data)
        for _ in range(ring.size):
            ring.add([Buffer(addr, len(data))])

    def refill(self):
        for ring in (self.attached.tx[0], self.attached.rx[0]):
            if ring.chains:
                ring.avail[1] = (int(ring.used[1]) + len(ring.chains)) & 0xFFFF


def step(host, senders, rounds=ROUNDS):
    """Rounds with time, all rings full again before each. Returns what each sender's context had, in ns."""
    nic = host.machine.nic
    for _ in range(rounds):
        for sender in senders:
            sender.refill()
        nic.poll(1, 256, timed=True)
        host.wire.get()
    return [nic.time(sender.index) for sender in senders]


def had(time):
    return sum(ns for name, ns in time.items() if name != "worst_round")


def test_frames_of_any_size_have_the_same_time(host):
    small, large = Sender(host, "small", 1, size=14), Sender(host, "large", 2, size=1514)
    times = step(host, [small, large])
    assert had(times[0]) == pytest.approx(had(times[1]), rel=NEAR)
    assert min(time["transmit"] for time in times) > 2 * SLACK


def test_weights_are_of_time(host):
    one, three = Sender(host, "one", 1, size=200), Sender(host, "three", 2)
    three.guest.context.set(weight=3)
    times = step(host, [one, three])
    assert had(times[1]) == pytest.approx(3 * had(times[0]), rel=NEAR)
    assert had(times[0]) > 2 * SLACK


def test_a_broadcast_is_at_its_senders_cost(host):
    receivers = [Sender(host, f"receiver{i}", 10 + i) for i in range(6)]
    loud, quiet = Sender(host, "loud", 1, to=BROADCAST, size=60), Sender(host, "quiet", 2)
    for receiver in receivers:
        receiver.attached.tx[0].chains.clear()  # they only receive
    first = step(host, [loud, quiet, *receivers], rounds=300)  # what these had to send themselves is gone
    times = step(host, [loud, quiet, *receivers])
    times = [
        {what: ns - past[what] for what, ns in time.items()} for time, past in zip(times, first, strict=True)
    ]
    assert had(times[0]) == pytest.approx(had(times[1]), rel=NEAR)
    assert max(time["signal"] + time["receive"] for time in times[2:]) < NEAR * had(times[0])


def test_a_ring_that_has_to_be_walked_is_at_its_owners_cost(host):
    """The sender pays for its frame, the receiver for its chain: together they have what another has."""
    honest, walked = Sender(host, "honest", 1), Sender(host, "walked", 2, to=None, size=60)
    table = walked.attached.rx[0].table
    table["len"][::2] = 20
    table["flags"][::2] |= VRING_DESC_F_NEXT
    table["next"][::2] = range(1, len(table), 2)
    times = step(host, [honest, walked])
    assert times[1]["receive"] > SLACK
    assert had(times[0]) == pytest.approx(had(times[1]), rel=NEAR)


def test_a_receiver_in_debt_gets_nothing_until_it_has_paid(host):
    """Its ring is walked for frames of others, and costs more than it sends: the sender keeps its share."""
    receiver = Sender(host, "receiver", 1)
    receiver.attached.tx[0].chains.clear()
    table = receiver.attached.rx[0].table
    table["len"][:-1] = 10
    table["flags"][:-1] |= VRING_DESC_F_NEXT
    table["next"][:-1] = range(1, len(table))
    sender = Sender(host, "sender", 2, to=mac(receiver.guest), size=60)
    times = step(host, [receiver, sender])
    assert times[0]["receive"] > SLACK
    assert had(times[0]) < (1 + NEAR) * had(times[1])
    assert receiver.guest.context.stats()["rx_drop_no_buffer"] > 0


def test_who_is_alone_pays_nothing_back(host):
    """No frame is dropped for a debt while nobody else wants the core."""
    alone = Sender(host, "alone", 1, to=None, size=60)
    table = alone.attached.rx[0].table
    table["len"][::2] = 20
    table["flags"][::2] |= VRING_DESC_F_NEXT
    table["next"][::2] = range(1, len(table), 2)
    times = step(host, [alone])
    stats = alone.guest.context.stats()
    assert stats["rx_frames"] > 0.9 * stats["tx_frames"]
    assert times[0]["receive"] > 0


def test_a_nic_that_is_stepped_without_time_charges_nobody(host):
    sender = Sender(host, "sender", 1)
    step(host, [sender], rounds=1)
    sender.guest.context.set(weight=2)
    host.machine.nic.poll(100)
    before = host.machine.nic.time(sender.index)
    assert before["control"] == 0  # the engine did not run: nobody waited


def test_the_worst_round_is_forgotten_when_it_is_asked_for(host):
    sender = Sender(host, "sender", 1)
    step(host, [sender], rounds=10)
    nic = host.machine.nic
    assert nic.time(sender.index)["worst_round"] > 0 < nic.core_time["worst_round"]
    nic.reset_worst()
    assert nic.time(sender.index)["worst_round"] == nic.core_time["worst_round"] == 0


def test_a_copy_for_who_sees_everything_is_at_its_own_cost(host):
    """One that only listens takes half of the core at most: the sender's half stays its own."""
    listener, sender = Sender(host, "listener", 1), Sender(host, "sender", 2)
    listener.attached.tx[0].chains.clear()
    listener.guest.context.set(promiscuous=True)
    times = step(host, [listener, sender])
    assert times[0]["receive"] > SLACK
    assert had(times[0]) < (1 + NEAR) * had(times[1])
