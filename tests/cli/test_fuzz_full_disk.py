"""A breach keeps its exit status where nothing can be written: a full disk, a closed or a full output."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import needs_namespaces

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "unprotected.py"
COMMAND = [sys.executable, "-P", "-c", "import sys; from cdna.cli import main; sys.exit(main())", "fuzz"]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB with room for names alone."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", place], check=True)
    try:
        with open(place / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def attack(place: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    options = ("--attack", str(EXAMPLE), "--seconds", "60", "--jobs", "1", "--out", str(place))
    path = os.pathsep.join(os.path.abspath(part) for part in sys.path if part)
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(place)}
    return subprocess.run(
        [*COMMAND, *options],
        env=environment,
        text=True,
        timeout=100,
        **{"stderr": subprocess.PIPE, **streams},
    )


@needs_namespaces
def test_a_full_disk(full: Path) -> None:
    with open(full / "out", "w") as out:
        done = attack(full, stdout=out)
    assert done.returncode == 1, done.stderr
    assert "outside: step 0: a frame on the wire holds" in done.stderr
    assert "no space left on device" in done.stderr
    assert "replay it with" not in done.stderr
    assert list(full.glob("fuzz-*")) == []


@needs_namespaces
def test_a_full_disk_behind_both_outputs(full: Path) -> None:
    with open(full / "out", "w") as out, open(full / "errors", "w") as errors:
        assert attack(full, stdout=out, stderr=errors).returncode == 1


def test_full_outputs(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        assert attack(tmp_path, stdout=full, stderr=full).returncode == 1
    assert len(list(tmp_path.glob("fuzz-outside-*.json"))) == 1
