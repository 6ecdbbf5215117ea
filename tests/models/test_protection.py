"""The protection protocol, all its states: nothing goes wrong, and without any one check something does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.spin import Search, checks, finish, made_by

ROOT = Path(__file__).parents[2]
MODELS = ("protection", "iommu")
MUTANTS = [(model, check) for model in MODELS for check in made_by(model)]

# What the code calls a check of the models: names in ext/cdna/checks.pxd. Or, of what is no condition but a
# step, the file and the words that make it.
IN_CODE: dict[str, list[str | tuple[str, str]]] = {
    "CONTEXT": ["CHECK_CONTEXT_OWNER"],
    "ROOM": ["CHECK_RING_FULL"],
    "ADDRESS": ["CHECK_PIN_START", "CHECK_PIN_END", "CHECK_MAP_RANGE"],
    "OWNER": ["CHECK_PIN_OWNER", "CHECK_MAP_OWNER"],
    "FETCH": ["PLANT_REQUEST_ADDR"],
    "PIN": [("ext/cdna/vmm/protection.pyx", "memory.page[page].pins += 1")],
    "COMPLETED": [("ext/cdna/vmm/protection.pyx", "completed_upto(vmm, context, ring)")],
    "WRITE_ORDER": [("ext/cdna/vmm/protection.pyx", "write_desc(&ring[producer & mask], &desc)")],
    "GIVE_OWNER": ["CHECK_TRANSFER_OWNER"],
    "GIVE_PINNED": ["CHECK_TRANSFER_PINNED"],
    "GIVE_MAPPED": [("cdna/vmm/hypervisor.py", "if self.memory.is_exported(page)")],
    "MODULUS": [("ext/cdna/nic/device.pyx", "2 * longest <= seq_modulus")],
    "STANDSTILL": [("ext/cdna/nic/engine_thread.pyx", "self._pause()")],
    "REAP": [("ext/cdna/vmm/tables.pyx", "reap_all(self.c, context)")],
    "CLEAR": [("ext/cdna/nic/device.pyx", "memset(page, 0, self._pages.extent)")],
    "TAKE_BACK": [("ext/cdna/memory.pyx", "self._take_back(first)")],
    "STATE": [("ext/cdna/nic/doorbell.pxd", "if context.state != CONTEXT_RUNNING")],
    "PRODUCER": ["CHECK_PRODUCER_AHEAD", "CHECK_PRODUCER_BACK"],
    "SEQUENCE": ["CHECK_SEQUENCE"],
    "READ_ORDER": [("ext/cdna/nic/native/ring.pxd", "(<uint64_t *>copy)[1] = load_u64(&words[1])")],
    "LOOK_AGAIN": [("ext/cdna/nic/engine.pyx", "if stood_still(nic):\n            continue")],
    "MAP_RANGE": ["CHECK_MAP_IO_RANGE"],
    "MAP_FREE": ["CHECK_MAP_MAPPED"],
    "UNMAP_RANGE": ["CHECK_UNMAP_RANGE"],
    "UNMAP_MAPPED": ["CHECK_UNMAP_MAPPED"],
    "LIMBO_ROOM": ["CHECK_UNMAP_LIMBO"],
    "LIMBO": ["CHECK_LIMBO_EPOCH"],
    "TRANSLATE_RANGE": ["CHECK_IO_RANGE"],
    "TRANSLATE_PRESENT": ["CHECK_IO_PRESENT"],
}

# Of the branches without a check, which a search with all of them does not take.
LEFT_OUT = ("upto = 0", "number = ring", "enqueued = 0", "-end-")

needs_spin = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")), reason="needs spin and gcc (make peers)"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The searches through all states. They run while the others look for what goes wrong."""
    running = {}
    try:
        for model in MODELS:
            running[model] = Search(model, tmp_path_factory.mktemp(model)).start()
        yield running
    finally:
        for search in running.values():
            search.kill()
            search.wait()


@pytest.fixture(scope="module")
def leaving_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Search]:
    return {model: Search(model, tmp_path_factory.mktemp(model), leaving_out=True) for model in MODELS}


@needs_spin
@pytest.mark.parametrize(("model", "check"), MUTANTS)
def test_without_a_check_something_goes_wrong(
    whole: dict[str, subprocess.Popen[str]], leaving_out: dict[str, Search], model: str, check: str
) -> None:
    found = leaving_out[model].run_without(checks()[check])
    assert found.violated, f"{model} without {check}:\n{found.text[-2000:]}"


@needs_spin
@pytest.mark.parametrize("model", MODELS)
def test_with_all_checks_nothing_does(whole: dict[str, subprocess.Popen[str]], model: str) -> None:
    found = finish(whole[model])
    assert found.violated is None, found.text
    assert found.complete, found.text
    assert found.states > 100_000, found.text
    assert [line for line in found.unreached if not line.startswith(LEFT_OUT)] == [], found.text


def test_the_models_and_the_code_make_the_same_checks() -> None:
    names = set(re.findall(r"^    ((?:CHECK|PLANT)_\w+)", (ROOT / "ext/cdna/checks.pxd").read_text(), re.M))
    assert set(IN_CODE) == set(checks()) == {check for _, check in MUTANTS}
    for check, places in IN_CODE.items():
        for place in places:
            if isinstance(place, str):
                assert place in names, f"{check}: no {place} in ext/cdna/checks.pxd"
            else:
                file, words = place
                assert words in (ROOT / file).read_text(), f"{check}: {file} has no {words!r} any more"
