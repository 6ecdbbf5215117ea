"""The generator in front of a NIC: no frame is made that no guest has a buffer for."""

import pytest

from cdna import Machine
from cdna.base.units import parse_mac
from cdna.errors import ConfigError
from cdna.nic.generator import GeneratorWire
from cdna.nic.traffic import FrameError, Load

PEER = bytes.fromhex("0200000000fe")


def wired(load, flows_of, *, buffer_size=2048, window=1 << 30):
    """A machine with a guest per entry of `flows_of`, that many flows to it; and its drivers."""
    wire = GeneratorWire(load, max_flows=sum(flows_of))
    machine = Machine(wire=wire, contexts=4)
    drivers = []
    for number, flows in enumerate(flows_of):
        driver = machine.attach(f"guest{number}", rx_ring=16, buffer_size=buffer_size)
        mac = parse_mac(driver.context.mac)
        for _ in range(flows):
            wire.add_flow(mac, PEER, window=window, context=driver.context.index, buffer_size=buffer_size)
        drivers.append(driver)
    wire.follow(machine.nic)
    return machine, wire, drivers


def settle(machine):
    while machine.step():
        pass


@pytest.mark.parametrize(
    ("load", "buffer_size", "buffers"),
    [
        (Load.fixed(60), 2048, 1),
        (Load.fixed(1514), 512, 3),
        (Load.fixed(9018), 2048, 5),
        (Load.fixed(64), 64, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("flows_of", [[1], [3], [1, 2], [2, 1, 1]], ids=str)
def test_frames_wait_for_buffers_and_none_is_lost(load, buffer_size, buffers, flows_of):
    load.verify = True
    machine, wire, drivers = wired(load, flows_of, buffer_size=buffer_size)
    with wire:
        total = {}
        for _ in range(5):
            settle(machine)
            flow = 0
            for driver, flows in zip(drivers, flows_of, strict=True):
                # as many frames as there are whole sets of buffers, whichever flows they are of
                frames = driver.recv()
                assert len(frames) == 16 // buffers
                for frame in frames:
                    number = int.from_bytes(frame[16:20], "little")
                    assert flow <= number < flow + flows
                    assert load.check(frame, number, total.get(number, 0)) == FrameError.FRAME_OK
                    total[number] = total.get(number, 0) + 1
                flow += flows
                assert driver.context.stats()["rx_drop_no_buffer"] == 0
                driver.refill()
        assert [wire.sent(number) for number in sorted(total)] == [total[n] for n in sorted(total)]


def test_a_guest_without_buffers_holds_up_nobody_else():
    machine, wire, (idle, busy) = wired(Load.fixed(60), [1, 1])
    with wire:
        for _ in range(4):
            settle(machine)
            assert len(busy.recv()) == 16
            busy.refill()
        assert len(idle.recv()) == 16
        assert idle.context.stats()["rx_drop_no_buffer"] == 0


def test_a_flow_for_a_context_that_is_not_there():
    wire = GeneratorWire(Load.fixed(60))
    machine = Machine(wire=wire, contexts=4)
    wire.follow(machine.nic)
    with pytest.raises(ConfigError, match="context 4 of a flow: this NIC has contexts 0 to 3"):
        wire.add_flow(PEER, PEER, window=1, context=4)
    other = GeneratorWire(Load.fixed(60))
    other.add_flow(PEER, PEER, window=1, context=9)
    with pytest.raises(ConfigError, match="context 9"):
        other.follow(machine.nic)
