"""What runs the commands of a page would notice if one did not do what is shown."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Shell, Step, prints, steps

PAGE = """
```sh
$ not run
```

```console
$ echo one; echo two
one
$ cat <<end
> three
> end
...
```
text
```console repeat about
$ true
```
"""


def test_steps() -> None:
    first, second, third = steps(PAGE)
    assert (first.line, first.command, first.shown, first.flags) == (
        7,
        "echo one; echo two",
        ["one"],
        frozenset(),
    )
    assert (second.command, second.shown) == ("cat <<end\nthree\nend", ["..."])
    assert third.flags == {"repeat", "about"}


@pytest.mark.parametrize(
    ("shown", "printed", "right"),
    [
        ("a b", "x\na    b\ny", True),
        ("a\nc", "a\nb\nc", False),
        ("a\n...\nc", "a\nb\nb\nc", True),
        ("a\n...\nc", "a\nc", True),
        ("a ... c", "a b b c", True),
        ("lab: 3 guests, socket ...", "lab: 3 guests, socket /x/y", True),
        ("lab: 3 guests", "lab: 4 guests", False),
        ("", "anything", True),
        ("a.c", "abc", False),
        ("a", "ab", False),
    ],
)
def test_what_is_printed(shown: str, printed: str, right: bool) -> None:
    assert prints(shown.splitlines(), printed.splitlines()) is right


@pytest.mark.parametrize(
    ("printed", "right"),
    [("x 45.1 4000 z", True), ("x 54.9 4000 z", True), ("x 44.9 4000 z", False), ("x y", False)],
)
def test_about(printed: str, right: bool) -> None:
    assert prints(["x 50.0 4100 ..."], [printed], about=True) is right


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, os.environ)
    yield shell
    shell.close()


def test_a_shell_keeps_its_state(shell: Shell, tmp_path: Path) -> None:
    shell.run(Step(1, "x=5; cd /"))
    shell.run(Step(2, "pwd; echo $x", ["/", "5"]))
    shell.run(Step(3, "cat", []))  # it reads nothing, least of all the commands
    shell.run(Step(4, "n=$((n + 1)); echo $((n < 4 ? n : 9))", ["9"], frozenset({"repeat"})))
    shell.run(Step(5, "echo $n", ["6"]))  # it was right three times in a row


def test_what_a_background_command_prints_may_be_late(shell: Shell, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    shell.run(Step(1, "cat fifo &"))
    shell.run(Step(2, "(echo ready > fifo) &", ["ready"]))


def test_a_wrong_output_and_a_wrong_status(shell: Shell) -> None:
    with pytest.raises(AssertionError, match="line 7: echo a\nprinted:\na"):
        shell.run(Step(7, "echo a", ["b"]))
    with pytest.raises(AssertionError, match="ended with 3"):
        shell.run(Step(1, "(exit 3)"))
    shell.run(Step(1, "echo cdna: no; false", ["cdna: no"]))
