"""The targets, and where their inputs lie."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

NATIVE = ("native", "virtio", "offload", "frames")  # compiled: some ten thousand inputs a second
PYTHON = ("messages", "captures", "plans")
TARGETS = (*NATIVE, *PYTHON)

_INSTRUMENTED = {  # of what is imported, the packages and modules whose Python code is measured
    "messages": ("cdna.vmm.vhost_user", "cdna.faults", "cdna.nic.event_fd", "cdna.base.sockets"),
    "captures": ("cdna.nic.capture",),
    "plans": ("tomllib", "cdna.lab"),
}

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"  # an archive a target: inputs that together reach what was ever reached
REGRESSIONS = FOLDER / "regressions"  # a folder a target: inputs that found something once
DICTIONARIES = FOLDER / "dictionaries"


def instrumented(target: str) -> tuple[str, ...]:
    return _INSTRUMENTED[target]


def corpus(target: str) -> Iterator[tuple[str, bytes]]:
    """The names and the bytes of a target's inputs."""
    archive = CORPUS / f"{target}.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as inputs:
            for name in inputs.namelist():
                yield name, inputs.read(name)


def regressions(target: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted((REGRESSIONS / target).glob("*")):
        yield path.name, path.read_bytes()


def pack(target: str, inputs: dict[str, bytes]) -> None:
    """Replaces a target's corpus; the same inputs make the same file."""
    CORPUS.mkdir(exist_ok=True)
    with zipfile.ZipFile(CORPUS / f"{target}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(inputs.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
