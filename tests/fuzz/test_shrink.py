"""ddmin, and cases carried out in processes of their own."""

import os

import pytest

from cdna.errors import ConfigError
from cdna.fuzz.shrink import ddmin, shrink
from cdna.fuzz.trial import Trials


@pytest.mark.parametrize("needed", [{0}, {99}, {3, 4}, {0, 50, 99}, set(range(0, 100, 10)), set(range(100))])
def test_what_is_needed_is_left(needed: set[int]) -> None:
    tries = []

    def fails(steps: list[int]) -> bool:
        tries.append(len(steps))
        return needed <= set(steps)

    assert ddmin(list(range(100)), fails) == sorted(needed)
    assert len(tries) < 4000


def test_a_case_that_fails_otherwise_is_another_one() -> None:
    def attempt(case: dict) -> tuple[str, str] | None:
        if 7 in case["steps"]:
            return "outside", "7"
        return ("lost", "3") if 3 in case["steps"] else None

    smaller, finding = shrink({"campaign": "none", "steps": list(range(10))}, "outside", attempt)
    assert (smaller["steps"], finding) == ([7], ("outside", "7"))


def test_a_case_that_does_not_fail_again_is_kept_whole() -> None:
    case = {"campaign": "none", "steps": [1, 2, 3]}
    assert shrink(case, "lost", lambda case: None) == (case, None)


ATTACK = """
import os, signal, time
class {name}:
    def attack(self, guest, random):
        {code}
"""


@pytest.mark.parametrize(
    ("name", "code", "kind", "text"),
    [
        ("Dies", "os.kill(os.getpid(), signal.SIGSEGV)", "crash", "SIGSEGV"),
        ("Hangs", "time.sleep(1000)", "hang", "not done"),
        ("Fine", "pass", None, None),
    ],
)
def test_how_a_case_may_end(
    tmp_path: os.PathLike[str], name: str, code: str, kind: str | None, text: str | None
) -> None:
    path = os.path.join(tmp_path, "mine.py")
    with open(path, "w") as file:
        file.write(ATTACK.format(name=name, code=code))
    case = {
        "campaign": "attack",
        "attack": f"{path}:{name}",
        "protection": "validated",
        "seed": 1,
        "steps": [1],
    }
    with Trials(patience=2 if kind == "hang" else 60) as trials:
        finding = trials(case)
    assert (finding and finding[0]) == kind
    assert kind is None or text in finding[1]


def test_an_attack_that_is_wrong_is_no_finding(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "mine.py")
    with open(path, "w") as file:
        file.write(ATTACK.format(name="Wrong", code="guest.no_such_thing()"))
    case = {
        "campaign": "attack",
        "attack": f"{path}:Wrong",
        "protection": "validated",
        "seed": 1,
        "steps": [1],
    }
    with Trials() as trials, pytest.raises(ConfigError, match=r"mine\.py:5: AttributeError"):
        trials(case)
