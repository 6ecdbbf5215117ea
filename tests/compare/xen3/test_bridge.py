"""The learning bridge: what it learns, forgets and floods."""

from hypothesis import given
from hypothesis import strategies as st
from tests.support.xen_parts import Bridge

BROADCAST = 2**48 - 1


def mac(n: int) -> int:
    """A unicast address whose last bytes are n."""
    return 0x02 | n << 16


def test_an_address_is_found_behind_the_port_it_came_from() -> None:
    bridge = Bridge(4)
    bridge.learn(mac(1), 2)
    assert bridge.lookup(mac(1)) == 2
    assert bridge.lookup(mac(2)) is None  # flooded


def test_an_address_moves_with_its_frames() -> None:
    bridge = Bridge(4)
    bridge.learn(mac(1), 2)
    bridge.learn(mac(1), 3)
    assert (bridge.lookup(mac(1)), bridge.moved, bridge.used) == (3, 1, 1)


def test_multicast_is_flooded_and_never_learned() -> None:
    bridge = Bridge(4)
    bridge.learn(BROADCAST, 1)
    bridge.learn(mac(1) | 1, 1)
    assert (bridge.used, bridge.lookup(BROADCAST), bridge.lookup(mac(1) | 1)) == (0, None, None)


def test_an_address_ages_and_is_refreshed() -> None:
    bridge = Bridge(4, ageing=300)
    bridge.learn(mac(1), 2, now=0)
    bridge.learn(mac(2), 2, now=0)
    bridge.learn(mac(2), 2, now=200)
    assert bridge.lookup(mac(1), now=300) == 2
    assert bridge.lookup(mac(1), now=301) is None
    assert bridge.lookup(mac(2), now=301) == 2
    assert (bridge.age(301), bridge.used) == (1, 1)


def test_a_full_database_gives_way_to_the_old_alone() -> None:
    bridge = Bridge(4, entries=2, ageing=10)
    bridge.learn(mac(1), 1, now=0)
    bridge.learn(mac(2), 2, now=5)
    bridge.learn(mac(3), 3, now=8)
    assert bridge.lookup(mac(3), now=8) is None  # no room
    bridge.learn(mac(3), 3, now=12)
    assert bridge.lookup(mac(3), now=12) == 3
    assert bridge.lookup(mac(2), now=12) == 2


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 3)), max_size=300))
def test_it_agrees_with_a_dictionary(frames: list[tuple[int, int]]) -> None:
    """700 addresses in 256 buckets: chains are walked."""
    bridge, model = Bridge(4), {}
    for n, port in frames:
        bridge.learn(mac(n), port)
        model[n] = port
    assert bridge.used == len(model)
    assert all(bridge.lookup(mac(n)) == model.get(n) for n in range(701))
