"""Two guests as scapy sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.scapy_pair import Pair


@pytest.fixture(params=["stepped", "running", "remote"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """On a machine of each kind."""
    from tests.support.scapy_pair import Pair

    pair = Pair(request.param, tmp_path)
    yield pair
    pair.close()


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[Pair]:
    """On a machine that moves when they use it."""
    from tests.support.scapy_pair import Pair

    pair = Pair("stepped", tmp_path)
    yield pair
    pair.close()
