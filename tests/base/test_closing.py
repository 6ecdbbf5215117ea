"""What `with` does to a thing that is closed."""

import pytest

from cdna.base.closing import Closing


class Counted(Closing):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_the_end_of_a_block_closes() -> None:
    with Counted() as counted:
        assert counted.closed == 0
    assert counted.closed == 1


def test_an_error_closes_and_passes_on() -> None:
    counted = Counted()
    with pytest.raises(KeyError), counted:
        raise KeyError
    assert counted.closed == 1


def test_closing_needs_a_way_to_close() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Closing()  # type: ignore[abstract]
