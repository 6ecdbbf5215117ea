"""Ports whose writes take long: a second thread makes them, and the other guests do not wait."""

import contextlib

import pytest

import cdna
from tests.guests.test_pump import HEADER, RECEIVED, Lab, get, until
from tests.support.frames import frame, mac
from tests.support.waiters import many_waiters


@pytest.fixture(params=[0.0, -1], ids=["sleeps at once", "never sleeps"])
def lab(request):
    lab = Lab(request.param)
    yield lab
    lab.close()


class Three:
    """Alice, who sends, Bob, whose stack takes long, and Carol."""

    def __init__(self, lab):
        self.lab = lab
        self.alice, self.stack_a = lab.guest("alice")
        self.bob, self.stack_b = lab.guest("bob")
        self.carol, self.stack_c = lab.guest("carol")
        lab.start()

    def bobs(self, name):
        return self.lab.pump.stats(self.lab.ports[1])[name]

    def send(self, to, number=0):
        """A frame of Alice's. Returns it as the receiver gets it."""
        data = frame(mac(to), mac(self.alice), number)
        self.stack_a.send(HEADER + data)
        return RECEIVED + data

    def to_bob(self, number=0):
        expected = self.send(self.bob, number)
        assert get(self.stack_b) == expected

    def make_slow(self):
        """Sends to Bob until the second thread writes for him."""

        def another():
            self.to_bob()
            return self.bobs("slow")

        assert until(another)


def test_the_second_thread_writes_for_a_slow_guest_in_order(lab):
    three = Three(lab)
    sent = 0

    def another_burst():
        nonlocal sent
        expected = [three.send(three.bob, sent + number) for number in range(20)]
        assert [get(three.stack_b) for _ in expected] == expected
        sent += 20
        return three.bobs("slow") >= 40

    with many_waiters(three.stack_b.fileno()):
        assert until(another_burst)
    assert until(lambda: three.bobs("to_tap") == sent)  # a frame is counted after its write
    assert three.bobs("lost_to_tap") == 0


def test_the_loop_writes_again_when_writes_are_short(lab):
    three = Three(lab)
    with many_waiters(three.stack_b.fileno()):
        three.make_slow()

    def written_by_the_loop():
        return three.bobs("to_tap") - three.bobs("slow")

    before = written_by_the_loop()

    def another():
        three.to_bob()
        return written_by_the_loop() > before

    assert until(another)


def test_a_guest_takes_more_than_its_ring_holds(lab):
    """Frames without room are dropped as for any slow driver; others get theirs, and the ring fills again."""
    three = Three(lab)
    with many_waiters(three.stack_b.fileno()):
        three.make_slow()
        for number in range(300):
            three.send(three.bob, number)
        expected = three.send(three.carol)
        assert get(three.stack_c) == expected
        received = three.bob.context.stats
        assert until(lambda: three.bobs("to_tap") + three.bobs("lost_to_tap") >= received()["rx_frames"])
        three.stack_b.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                three.stack_b.recv(1 << 17)
        three.to_bob()
    stats = received()
    assert stats["rx_frames"] + stats["rx_drop_no_buffer"] >= 300


def test_a_slow_guest_is_removed_while_frames_wait(lab):
    three = Three(lab)
    with many_waiters(three.stack_b.fileno()):
        three.make_slow()
        before = three.bob.context.stats()["rx_frames"]
        for number in range(20):
            three.send(three.bob, number)
        assert until(lambda: three.bob.context.stats()["rx_frames"] > before)
        lab.pump.remove(lab.ports[1])
        lab.machine.vmm.revoke(three.bob.context)
        dave, stack_d = lab.guest("dave")
        expected = three.send(dave)
        assert get(stack_d) == expected
    assert lab.ports[3] == lab.ports[1]
    assert lab.pump.stats(lab.ports[3])["slow"] == 0


def test_the_time_of_taps_is_the_guests(lab):
    three = Three(lab)
    for number in range(20):
        three.to_bob(number)
    assert until(lambda: lab.machine.nic.time(three.bob.context.index)["receive"] > 0)
    assert lab.machine.nic.time(three.alice.context.index)["transmit"] > 0
    assert lab.machine.nic.time(three.carol.context.index)["receive"] == 0


def test_a_driver_of_another_nic(lab):
    with cdna.Machine(memory=64 << 20, wire="null") as other:
        driver = other.attach("alice", vnet_header=True, tx_ring=16, rx_ring=32, buffer_size=16384)
        with pytest.raises(cdna.ConfigError, match="a context of the loop's NIC"):
            lab.pump.add(driver, 0)


def test_as_many_ports_as_contexts(lab):
    driver, stack = lab.guest("alice")
    contexts = lab.machine.nic.contexts
    taps = [stack]
    for _ in range(contexts - 1):
        taps.append(copy := stack.dup())
        copy.setblocking(False)
        lab.pump.add(driver, copy.fileno())
    with pytest.raises(cdna.ConfigError, match=f"{contexts} ports"):
        lab.pump.add(driver, stack.fileno())
    lab.pump.close()
    for copy in taps[1:]:
        copy.close()


def test_closing_a_pump_twice_and_using_it_again(lab):
    lab.guest("alice")
    lab.start()
    lab.pump.close()
    lab.pump.close()
    bob, stack_b = lab.guest("bob")
    carol, stack_c = lab.guest("carol")
    data = frame(mac(bob), mac(carol))
    stack_c.send(HEADER + data)
    assert get(stack_b) == RECEIVED + data
