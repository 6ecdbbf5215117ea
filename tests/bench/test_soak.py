"""`benchmarks/soak.py`, for some seconds: everybody takes part, and what is lost or grows is noticed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not BENCHMARKS.exists(), reason="no benchmarks beside these tests"),
]


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("soaklab.samples")


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("soaklab.frames")


def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--seconds", "4", "--without", "namespaces"]
    command += ["--report", str(tmp_path / "page"), "--json", str(tmp_path / "soak.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "soak.json").read_text())
    for name in ("native", "visitors", "remote", "vhost-user"):
        counts = result["honest"][name]
        assert counts["sent"] == counts["received"] + sum(counts["dropped"].values()) > 0, name
    assert result["lost"] == 0
    assert all(sum(kind["acts"].values()) > 0 for kind in result["hostile"].values())
    assert result["failures"] == []
    text = (tmp_path / "page" / "index.html").read_text()
    assert text.count("<svg") == 3
    assert "no frame was lost, and nothing grows" in text


def test_what_grows_is_found_and_what_wavers_is_not(samples: ModuleType) -> None:
    times = [float(at) for at in range(100)]
    steady = [40 + (3, -1, 0, 2, -2)[i % 5] * 0.3 for i in range(100)]
    assert not samples.trend("pss", times, steady).grows
    assert samples.trend("pss", times, [y + 0.1 * t for t, y in zip(times, steady, strict=True)]).grows
    assert samples.trend("descriptors", times, [10.0 + (t > 60) for t in times]).grows
    warm = [10.0 + min(t, 20) for t in times]
    assert not samples.trend("descriptors", times, warm).grows


class Line:
    """What is sent arrives, but for what it loses."""

    def __init__(self, lose: int) -> None:
        self.lose, self.arrived = lose, list[bytes]()

    def send(self, frames: list[bytes]) -> int:
        self.arrived += frames[self.lose :]
        return len(frames)

    def recv(self) -> list[bytes]:
        arrived, self.arrived = self.arrived, []
        return arrived


def test_a_frame_that_is_missing_is_lost_unless_there_is_a_reason(
    frames: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "PATIENCE", 0.01)
    made = frames.Frames(1).make(8, bytes(6), bytes(6))
    counts = frames.Counts()
    line = Line(0)
    frames.exchange(made, line, line, counts)
    assert (counts.sent, counts.received, counts.lost) == (8, 8, 0)
    line = Line(1)
    with pytest.raises(frames.Wrong, match="1 of 8 frames are missing"):
        frames.exchange(made, line, line, counts)
    assert counts.lost == 1
    line = Line(1)
    dropped = iter([{"rx_drop_no_buffer": 5}])
    frames.exchange(made, line, line, frames.Counts(), drops=lambda: next(dropped, {"rx_drop_no_buffer": 6}))
