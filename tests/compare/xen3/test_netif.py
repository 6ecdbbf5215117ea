"""The shared ring: who is notified, and what is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.xen_netif import NetifRing

WRAP = 2**32


@pytest.fixture(params=[0, WRAP - 3])
def ring(request: pytest.FixtureRequest) -> NetifRing:
    """A ring from its beginning, and one whose indices are about to wrap."""
    return NetifRing(request.param)


def test_the_first_push_notifies_and_the_next_do_not(ring: NetifRing) -> None:
    ring.request(1)
    assert ring.push_requests()
    ring.request(2)
    assert not ring.push_requests()
    assert [ring.take_request(), ring.take_request()] == [1, 2]


def test_a_push_of_nothing_does_not_notify(ring: NetifRing) -> None:
    assert not ring.push_requests()
    assert not ring.push_responses()


def test_the_backend_asks_again_before_it_sleeps(ring: NetifRing) -> None:
    ring.request(1)
    ring.push_requests()
    assert ring.final_check_for_requests()  # there is one
    ring.take_request()
    assert not ring.final_check_for_requests()
    ring.request(2)
    assert ring.push_requests()


def test_responses_notify_a_frontend_that_sleeps(ring: NetifRing) -> None:
    for id_ in range(3):
        ring.request(id_)
    ring.push_requests()
    for _ in range(3):
        ring.take_request()
    assert not ring.final_check_for_responses()
    ring.respond(0)
    ring.respond(1, -1)
    assert ring.push_responses()
    ring.respond(2)
    assert not ring.push_responses()
    assert [ring.take_response() for _ in range(3)] == [(0, 0), (1, -1), (2, 0)]
    assert ring.unconsumed_responses == 0


def test_the_ring_holds_256(ring: NetifRing) -> None:
    for id_ in range(256):
        ring.request(id_)
    assert ring.free_requests == 0
    ring.push_requests()
    assert ring.unconsumed_requests == 256
    assert not ring.overflow


@given(start=st.integers(0, WRAP - 1), announced=st.integers(0, WRAP - 1))
def test_a_wild_producer_index_is_noticed_and_never_believed(start: int, announced: int) -> None:
    ring = NetifRing(start)
    ring.poke_req_prod(announced)
    ahead = (announced - start) % WRAP
    assert ring.overflow == (ahead > 256)
    assert ring.unconsumed_requests == min(ahead, 256)


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=60))
def test_no_request_is_slept_through(pushes: list[tuple[int, bool]]) -> None:
    """A backend that sleeps after its final check is woken by the very next push, and by no push twice."""
    ring = NetifRing(WRAP - 50)
    asleep = False
    for n, run_backend in pushes:
        for _ in range(min(n, ring.free_requests)):
            ring.request(0)
        waiting = ring.unconsumed_requests
        if ring.push_requests():
            asleep = False
        assert not (asleep and ring.unconsumed_requests > waiting)
        if run_backend and not asleep:
            while ring.final_check_for_requests():
                ring.respond(ring.take_request())
                ring.push_responses()
                ring.take_response()
            asleep = True
