"""The native driver: batches, frames over several buffers, no copies, rings many times around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdna.abi import CompletionFlag
from cdna.base.units import PROTECTIONS
from cdna.errors import ConfigError, Refused
from cdna.guests.driver import Driver
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import OUTSIDE, frame, mac, receive_all

EOP = CompletionFlag.COMPLETION_F_EOP


def pair(**given_: object) -> tuple[Machine, Driver, Driver]:
    machine = Machine(16 << 20, wire=QueueWire(1024), contexts=4)
    return machine, machine.attach("a", **given_), machine.attach("b", **given_)


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("buffer_size", [1024, 2048, 4096, 9024, 12288])
def test_frames_of_every_length(protection, buffer_size):
    machine, a, b = pair(protection=protection, buffer_size=buffer_size, tx_ring=32, rx_ring=32)
    for size in (14, 17, 59, 60, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 1514, 2048, 4097, 9017, 9018):
        data = frame(mac(b), mac(a), size, size)
        assert a.send([data]) == 1
        machine.step()
        assert b.recv() == [data]
    assert a.tx_pending == 0
    machine.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_jumbo_frame_takes_several_buffers_each_with_its_completion(protection):
    machine, a, b = pair(protection=protection, buffer_size=2048, tx_ring=16, rx_ring=16)
    data = frame(mac(b), mac(a), size=9000)
    a.send([data])
    assert a.tx_pending == 5
    machine.step()
    assert b.rx_waiting == 5
    [buffers] = b.recv_views()
    assert [len(buffer.data) for buffer in buffers] == [2048] * 4 + [808]
    assert [buffer.flags & EOP for buffer in buffers] == [0, 0, 0, 0, EOP]
    assert b"".join(buffer.data.tobytes() for buffer in buffers) == data
    assert b.context.stats()["rx_frames"] == 1
    b.release([buffers])
    machine.close()


def test_a_frame_for_which_there_are_too_few_buffers_is_dropped_as_a_whole():
    machine, a, b = pair(tx_ring=64, rx_ring=8)
    frames = [frame(mac(b), mac(a), i, 9000) for i in range(2)]
    a.send(frames)  # five buffers each: the second frame finds three
    machine.step()
    assert b.recv() == frames[:1]
    assert b.context.stats()["rx_drop_no_buffer"] == 1
    a.send(frames[1:])
    machine.step()
    assert b.recv() == frames[1:]
    machine.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_frame_that_fills_the_buffers_to_the_last_byte_and_one_byte_more(protection):
    machine, a, b = pair(protection=protection, tx_ring=16, rx_ring=8, buffer_size=64)
    for i in range(20):
        fits, too_long = frame(mac(b), mac(a), i, 8 * 64), frame(mac(b), mac(a), i, 8 * 64 + 1)
        assert a.send([too_long]) == 1
        machine.step()
        assert b.recv() == []
        assert b.context.stats()["rx_drop_no_buffer"] == i + 1
        assert a.send([fits]) == 1
        machine.step()
        assert b.recv() == [fits]
    assert machine.nic.counters["faults"] == 0
    machine.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("seq_modulus", [16, 1 << 32])
def test_thousands_of_frames_through_small_rings(protection, seq_modulus):
    machine, a, b = pair(
        protection=protection, tx_ring=8, rx_ring=8, seq_modulus=seq_modulus, buffer_size=256
    )
    sent = received = 0
    while received < 4000:
        batch = [frame(mac(b), mac(a), sent + i, 60 + (sent + i) % 400) for i in range(1 + sent % 5)]
        sent += a.send(batch)
        machine.step()
        for got in b.recv(3):
            assert got == frame(mac(b), mac(a), received, 60 + received % 400)
            received += 1
        while b.context.stats()["rx_drop_no_buffer"] == 0 and b.rx_waiting > 4:
            for got in b.recv():
                assert got == frame(mac(b), mac(a), received, 60 + received % 400)
                received += 1
    assert b.context.stats()["rx_drop_no_buffer"] == 0
    assert machine.vmm.tables.counters["refusals"] == machine.nic.counters["faults"] == 0
    for driver in (a, b):
        machine.vmm.destroy_guest(driver.context.guest)
    assert not machine.memory.pins().any()
    machine.close()


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(14, 9018), min_size=1, max_size=40),
    buffer_size=st.sampled_from([320, 576, 2048, 12288]),
    protection=st.sampled_from(PROTECTIONS),
)
def test_any_lengths_in_any_buffers(sizes, buffer_size, protection):
    machine, a, b = pair(protection=protection, buffer_size=buffer_size, tx_ring=64, rx_ring=64)
    frames = [frame(mac(b), mac(a), i, size) for i, size in enumerate(sizes)]
    left = frames
    got: list[bytes] = []
    while left:
        left = left[a.send(left[: 64 // 32]) :]
        machine.step(2)
        got += receive_all(b)
    assert got == frames
    machine.close()


def test_a_batch_that_does_not_fit_is_sent_as_far_as_it_does():
    machine, a, b = pair(tx_ring=8, rx_ring=64)
    frames = [frame(mac(b), mac(a), i) for i in range(20)]
    assert a.send(frames) == 8
    assert a.send(frames[8:]) == 0
    machine.step()
    assert a.send(frames[8:]) == 8
    machine.step()
    assert a.send(frames[16:]) == 4
    machine.step()
    assert receive_all(b) == frames
    assert a.send([]) == 0
    machine.close()


def test_batches_of_more_than_one_hypercall():
    machine, a, b = pair(tx_ring=1024, rx_ring=1024)
    frames = [frame(mac(b), mac(a), i) for i in range(1000)]
    before = a.hypercalls
    assert a.send(frames) == 1000
    assert a.hypercalls - before == 4  # 256 descriptors each
    machine.step(20)
    assert receive_all(b) == frames
    machine.close()


@pytest.mark.parametrize("size", [0, 13, 9019, 70000])
def test_a_frame_of_no_possible_length(size):
    machine, a, b = pair(tx_ring=8)
    good = frame(mac(b), mac(a))
    with pytest.raises(ConfigError, match=f"frame 1 has {size} bytes: give 14 to 9018"):
        a.send([good, bytes(size), good])
    machine.step()
    assert b.recv() == [good]  # what stood before it is sent
    machine.close()


def test_a_frame_in_too_many_buffers():
    machine, a, b = pair(buffer_size=64, tx_ring=64)
    with pytest.raises(
        ConfigError, match="a frame of 9000 bytes needs 141 buffers of 64: give the driver larger"
    ):
        a.send([frame(mac(b), mac(a), size=9000)])
    data = frame(mac(b), mac(a), size=31 * 64)
    assert a.send([data]) == 1
    machine.step()
    assert b.recv() == [data]
    machine.close()


def test_frames_are_anything_that_has_bytes():
    machine, a, b = pair(tx_ring=8)
    data = frame(mac(b), mac(a))
    assert a.send(iter([data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)])) == 4
    machine.step()
    assert b.recv() == [data] * 4
    machine.close()


def test_single_use_buffers_have_a_few_io_pages_each():
    with pytest.raises(
        ConfigError, match="single-use buffers of 12352 bytes: give up to 12288, or another strategy"
    ):
        pair(protection="iommu:single-use", buffer_size=12352, tx_ring=8, rx_ring=8)
    machine, a, b = pair(protection="iommu:direct-map", buffer_size=65472, tx_ring=8, rx_ring=8)
    data = frame(mac(b), mac(a), size=9018)
    a.send([data])
    machine.step()
    assert b.recv() == [data]
    machine.close()


# --- without a copy -----------------------------------------------------------------------------------------


def test_buffers_are_filled_in_place_and_read_in_place():
    machine, a, b = pair(tx_ring=16, rx_ring=16)
    memory = a.context.guest.memory
    for n in range(1, 40):
        buffers = a.tx_views(3)
        assert len(buffers) == 3
        frames = [frame(mac(b), mac(a), n * 10 + i, 100 + n) for i in range(3)]
        for buffer, data in zip(buffers, frames, strict=True):
            assert np.shares_memory(buffer.data, memory)
            buffer.data[: len(data)] = np.frombuffer(data, np.uint8)
            buffer.length = len(data)
        assert a.submit(buffers) == 3
        machine.step()
        views = b.recv_views()
        assert [view[0].data.tobytes() for view in views] == frames
        assert all(np.shares_memory(view[0].data, b.context.guest.memory) for view in views)
        b.release(views)
    machine.close()


def test_views_that_are_kept_run_the_ring_dry_and_released_fill_it_again():
    machine, a, b = pair(tx_ring=32, rx_ring=8)
    frames = [frame(mac(b), mac(a), i) for i in range(20)]
    a.send(frames)
    machine.step()
    views = b.recv_views()
    assert len(views) == 8
    a.send(frames[:1])
    machine.step()
    assert b.recv_views() == []
    assert b.context.stats()["rx_drop_no_buffer"] == 13
    b.release(views[:5])
    a.send(frames[:8])
    machine.step()
    assert b.recv() == frames[:5]
    b.release(views[5:])
    a.send(frames[:8])
    machine.step()
    assert b.recv() == frames[:8]
    machine.close()


def test_tx_views_end_with_the_ring():
    machine, a, _ = pair(tx_ring=8)
    assert len(a.tx_views(100)) == 8
    assert a.tx_views(1) == []
    machine.close()


def test_a_buffer_is_submitted_and_released_once():
    machine, a, b = pair(tx_ring=8, rx_ring=8)
    [buffer] = a.tx_views(1)
    buffer.data[:60] = np.frombuffer(frame(mac(b), mac(a)), np.uint8)
    buffer.length = 60
    assert a.submit([buffer]) == 1
    with pytest.raises(ConfigError, match="this transmit buffer was submitted already"):
        a.submit([buffer])
    machine.step()
    views = b.recv_views()
    b.release(views)
    with pytest.raises(ConfigError, match="this receive buffer was released already"):
        b.release(views)
    for i in range(50):
        data = frame(mac(b), mac(a), i)
        assert a.send([data]) == 1
        machine.step()
        assert b.recv() == [data]
    machine.close()


@pytest.mark.parametrize("length", [0, 13, 2049])
def test_a_buffer_with_no_possible_length(length):
    machine, a, _ = pair(tx_ring=8)
    [buffer] = a.tx_views(1)
    buffer.length = length
    with pytest.raises(ConfigError, match=f"buffer with length {length}: give 14 to 2048"):
        a.submit([buffer])
    machine.close()


# --- the context is gone ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protection", ["validated", "iommu:single-use", "iommu:shared"])
def test_a_driver_whose_context_was_revoked_is_refused(protection):
    machine, a, b = pair(protection=protection, tx_ring=8, rx_ring=8)
    machine.vmm.revoke(a.context)
    with pytest.raises(Refused, match="hypercall of guest 'a' refused: REFUSED_CONTEXT"):
        a.send([frame(mac(b), mac(a)[:0] or b"\2" * 6)])
    assert a.recv() == []
    with pytest.raises(ConfigError, match="context 0 was revoked: assign it again"):
        Driver(a.context)
    machine.close()


def test_a_link_state_and_a_pending_frame():
    machine, a, _ = pair(tx_ring=8)
    assert a.link
    a.send([frame(OUTSIDE, mac(a))])
    assert a.tx_pending == 1
    machine.step()
    assert a.tx_pending == 0
    assert not a.faulted
    machine.close()
