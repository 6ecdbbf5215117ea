"""`cdna fuzz` from its arguments to its files, with worker processes; and the ten lines of the README."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cdna.guests.hostile import Hostile
from cdna.machine import Machine
from tests.cli.conftest import Cdna

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "import sys; from cdna.cli import main; sys.exit(main())", "fuzz"]


@pytest.fixture
def readme() -> str:
    """The lines of the README's hostile guest."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Attack it") : text.index("## In Python")]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def mine(tmp_path: Path, readme: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(readme)
    return path


def test_the_ten_lines_of_the_readme(cdna: Cdna, mine: Path, readme: str, tmp_path: Path) -> None:
    assert len(readme.splitlines()) <= 10
    report = tmp_path / "fuzz.json"
    ended = cdna("fuzz", "--attack", str(mine), "--seconds", "1", "--seed", "1", "--json", str(report))
    assert ended.status == 0, ended.err
    result = json.loads(report.read_text())
    assert result["attempts"] >= 40
    assert result["descriptors"] > result["attempts"]
    assert result["frames"] == 4 * result["attempts"]
    assert {"REFUSED_OWNER", "REFUSED_PINNED"} <= result["refusals"].keys()
    assert "FAULT_SEQUENCE" in result["faults"]
    assert (result["outside"], result["lost"], result["breach"]) == (0, 0, None)
    assert "bytes out of bounds: 0" in ended.out
    assert "neighbours' frames lost: 0 of" in ended.out


UNPROTECTED = """
class Mine:
    settings = {"protection": "none"}

    def attack(self, guest, random):
        if random.randrange(8) == 0:
            page = guest.foreign_pages()[-2]  # of a bystander; the last one lies behind the end of memory
            guest.post(1, [(page * 4096, 2048, 0)])
            guest.post(0, [guest.frame(guest.mac)])
"""


def test_a_breach_shrinks_and_replays(cdna: Cdna, mine: Path, readme: str, tmp_path: Path) -> None:
    """Without protection DMA reaches the pages of others: the one step that does it is left."""
    mine.write_text(UNPROTECTED)
    ended = cdna("fuzz", "--attack", str(mine), "--seconds", "20", "--seed", "1", "--out", str(tmp_path))
    assert ended.status == 1, ended.err
    (case,) = tmp_path.glob("fuzz-*.json")
    found = json.loads(case.read_text())
    assert (found["kind"], found["again"]) == ("outside", True)
    assert len(found["case"]["steps"]) == 1
    command = ended.error.partition("replay it with: cdna ")[2].split()
    assert command[:2] == ["fuzz", "--replay"]
    assert Path(command[2]).resolve() == case
    again = cdna(*command)
    assert (again.status, again.error) == (1, f"cdna fuzz: {found['kind']}: {found['text']}")
    mine.write_text(readme)
    assert cdna(*command).status == 0


def test_the_example_without_protection(cdna: Cdna, tmp_path: Path) -> None:
    """Four lines of code breach `none`; the case has the protection that they ran with, and replays."""
    example = ROOT / "examples" / "unprotected.py"
    assert len([line for line in example.read_text().splitlines() if line.strip()]) == 4
    assert example.read_text() in (ROOT / "docs" / "fuzz.md").read_text()
    ended = cdna("fuzz", "--attack", str(example), "--seconds", "20", "--jobs", "1", "--out", str(tmp_path))
    assert ended.status == 1, ended.err
    (case,) = tmp_path.glob("fuzz-outside-*.json")
    found = json.loads(case.read_text())
    assert "a frame on the wire holds" in found["text"]
    assert (found["case"]["protection"], len(found["case"]["steps"])) == ("none", 1)
    assert cdna("fuzz", "--replay", str(case)).status == 1


SETTINGS = [
    ('{"tx_rng": 8}', "'tx_rng': give some of mac, vlan, protection"),
    ('{"pages": 8}', "'pages': give some of mac"),
    ('{"remote": False}', "'remote': give some of mac"),
    ('{"protection": "nothing"}', "protection 'nothing': give one of validated"),
    ('{"anti_spoof": "off"}', "anti_spoof 'off': give True or False"),
    ('{"tx_ring": "x"}', "tx_ring 'x': give a whole number"),
    ("{1: 2}", "1: give some of mac"),
    ("7", "give a dict"),
]


@pytest.mark.parametrize(("settings", "says"), SETTINGS)
def test_settings_of_an_attack_that_cannot_be(cdna: Cdna, tmp_path: Path, settings: str, says: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(f"class Wrong:\n    settings = {settings}\n    def attack(self, guest, random): pass\n")
    ended = cdna("fuzz", "--attack", str(path))
    assert (ended.status, ended.out) == (2, "")
    assert ended.error.startswith("cdna fuzz: --attack wrong.py: settings of Wrong: ")
    assert says in ended.error


def test_a_setting_that_only_the_nic_refuses(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("class W:\n    settings = {'tx_ring': 7}\n    def attack(self, guest, random): pass\n")
    ended = cdna("fuzz", "--attack", str(path), "--jobs", "1")
    assert (ended.status, "--attack wrong.py: settings: tx_ring" in ended.error) == (2, True), ended.err


def test_an_attack_without_an_end_hangs(cdna: Cdna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is judged by its own step, long before the time is over, and whatever it catches."""
    path = tmp_path / "endless.py"
    path.write_text(
        textwrap.dedent("""
            class Endless:
                def attack(self, guest, random):
                    while True:
                        try:
                            open(0).read()
                        except Exception:
                            pass
        """)
    )
    ended = cdna("fuzz", "--attack", str(path), "--seconds", "600", "--jobs", "1", "--out", str(tmp_path))
    assert ended.status == 1, ended.err
    assert "hang: step 0: attack() has not returned within 3 s (endless.py:" in ended.err
    (case,) = tmp_path.glob("fuzz-hang-*.json")
    assert len(json.loads(case.read_text())["case"]["steps"]) == 1


@pytest.mark.parametrize("where", ["import", "init"])
def test_a_class_that_is_never_made(
    cdna: Cdna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("cdna.fuzz.attack.PATIENCE", 0.2)  # of the import, which is this process's
    loop = "while True: pass"
    path = tmp_path / "endless.py"
    if where == "import":
        path.write_text(f"class A:\n    def attack(self, guest, random): pass\n{loop}\n")
    else:
        path.write_text(
            f"class A:\n    def __init__(self):\n        {loop}\n    def attack(self, guest, random): pass\n"
        )
    ended = cdna("fuzz", "--attack", str(path), "--jobs", "1")
    assert ended.status == 2, ended.err
    assert ("not imported within 0.2 s" if where == "import" else "not made within 3 s") in ended.error


def test_a_worker_that_dies_is_a_breach(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "dies.py"
    path.write_text(
        textwrap.dedent("""
            import os
            class Dies:
                def attack(self, guest, random):
                    if random.randrange(30) == 0:
                        os.abort()
        """)
    )
    ended = cdna("fuzz", "--attack", str(path), "--seconds", "20", "--seed", "2", "--out", str(tmp_path))
    assert ended.status == 1
    (case,) = tmp_path.glob("fuzz-crash-*.json")
    assert len(json.loads(case.read_text())["case"]["steps"]) == 1
    assert "SIGABRT" in ended.err
    assert cdna("fuzz", "--replay", str(case)).status == 1


def test_it_ends_after_so_many_descriptors(cdna: Cdna, tmp_path: Path) -> None:
    report = tmp_path / "fuzz.json"
    ended = cdna(
        *("fuzz", "--campaign", "model", "--seconds", "600", "--descriptors", "1e3", "--jobs", "1"),
        *("--json", str(report)),
    )
    assert ended.status == 0
    result = json.loads(report.read_text())
    assert result["descriptors"] >= 1000
    assert result["seconds"] < 300
    assert result["campaigns"].keys() == {"model"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_what_there_was(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--campaign", "model", "--seconds", "600", "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stderr is not None
        assert "attempts" in process.stderr.readline()  # it runs
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 130
    assert "bytes out of bounds: 0" in out
    assert "interrupted after" in err
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_workers_start(tmp_path: Path) -> None:
    """Many workers take long to start; none of those that never began is a crash."""
    with subprocess.Popen(
        [*COMMAND, "--seconds", "600", "--jobs", "24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stderr is not None
        assert "0 attempts" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "bytes out of bounds: 0" in out
    assert [line.partition(" after")[0] for line in err.splitlines()] == ["cdna fuzz: interrupted"]


# option, value, what the line has to say besides
NONSENSE = [
    ("--seconds", "0", "above 0"),
    ("--seconds", "soon", "seconds"),
    ("--seconds", "nan", "above 0"),
    ("--seed", "x", "2^63"),
    ("--seed", "-1", "2^63"),
    ("--descriptors", "0", "1e9"),
    ("--descriptors", "1.5", "1e9"),
    ("--descriptors", "many", "1e9"),
    ("--descriptors", "inf", "1e9"),
    ("--campaign", "none", "native, virtio"),
    ("--campaign", "", "native, virtio"),
    ("--campaign", "model,model", "once"),
    ("--jobs", "0", "1 to 1024"),
    ("--jobs", "x", "1 to 1024"),
    ("--attack", "/no/such.py", "give a Python file"),
    ("--attack", str(ROOT / "README.md"), "give a Python file"),
    ("--attack", str(ROOT / "setup.py"), "attack(self, guest, random)"),
    ("--replay", "/no/such.json", "cannot be read"),
    ("--replay", str(ROOT / "README.md"), "no JSON"),
    ("--json", "/no/such/place/out.json", "no directory"),
    ("--out", "/no/such/place", "no directory"),
    ("--dask", "tcp://127.0.0.1:1", "no scheduler there"),
]


@pytest.mark.parametrize(("option", "value", "says"), NONSENSE)
def test_nonsense(cdna: Cdna, monkeypatch: pytest.MonkeyPatch, option: str, value: str, says: str) -> None:
    if option == "--dask":
        pytest.importorskip("distributed")
        monkeypatch.setattr("cdna.fuzz.cluster.CONNECT", 0.5)
    ended = cdna("fuzz", option, value)
    assert ended.status == 2
    assert ended.out == ""
    assert option in ended.error
    assert says in ended.error


def test_an_attack_that_raises_is_the_users_mistake(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("class Wrong:\n    def attack(self, guest, random):\n        guest.nothing()\n")
    ended = cdna("fuzz", "--attack", str(path), "--seconds", "5")
    assert ended.status == 2
    assert "wrong.py:3: AttributeError" in ended.error


def test_all_that_an_attack_may_use_is_documented() -> None:
    text = (ROOT / "docs" / "fuzz.md").read_text()
    with Machine(16 << 20) as machine:
        guest = Hostile(machine)
        for name in (name for name in dir(guest) if not name.startswith("_")):
            assert re.search(rf"`{name}[(`]", text), name
