"""Live tables on a terminal: only in its foreground, in the columns that there are; keys."""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import CDNA, DEADLINE, Serve
from tests.support.terminal import Terminal, drawn_in_place

NAME = "a-guest-whose-name-is-long"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    argv = ("--context=synthetic:sink", f"--context=synthetic:{NAME},to=sink,rate=10M")
    with Serve(tmp_path_factory.mktemp("terminal") / "control", *argv) as server:
        yield server


def top(server: Serve, *argv: str) -> list[str]:
    return [*CDNA, "top", "--socket", str(server.path), "--interval", "0.1", *argv]


def tables(shown: str) -> int:
    return shown.count("Mbit/s") // 2


def test_a_table_is_drawn_in_its_place_until_q(server: Serve) -> None:
    with Terminal(top(server)) as terminal:
        terminal.wait_for(lambda shown: tables(shown) >= 3)
        assert not terminal.settings_as_before  # a key needs no Enter
        terminal.type("q")
        assert terminal.end() == 0
        assert drawn_in_place(terminal.shown)
        assert terminal.settings_as_before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_as_before_however_it_ends(server: Serve, number: signal.Signals) -> None:
    with Terminal(top(server)) as terminal:
        terminal.wait_for(lambda shown: tables(shown) >= 2)
        terminal.process.send_signal(number)
        assert terminal.end() == (0 if number == signal.SIGINT else -number)
        assert terminal.settings_as_before


@pytest.mark.parametrize("columns", [24, 46, 80])
def test_a_narrow_terminal_has_fewer_columns_and_whole_names(server: Serve, columns: int) -> None:
    with Terminal(top(server), columns=columns) as terminal:
        terminal.wait_for(lambda shown: shown.count("sink") >= 3)
        terminal.type("q")
        assert terminal.end() == 0
        lines = terminal.plain.splitlines()
        assert max(map(len, lines)) <= columns
        assert lines[0].split()[0] == "guest"
        if columns > len(NAME):
            assert lines[3].split()[0] == NAME
            assert lines[0].count("Mbit/s") == 2


def test_more_guests_than_lines(server: Serve) -> None:
    with Terminal(top(server), lines=4) as terminal:
        terminal.wait_for(lambda shown: shown.count("and 2 more") >= 2)
        assert "sink" not in terminal.shown


def test_a_server_in_the_foreground(tmp_path: Path) -> None:
    argv = ["serve", "--socket", str(tmp_path / "s"), "--context", "synthetic:sink"]  # in its sandbox
    with Terminal([*CDNA, *argv]) as terminal:
        terminal.wait_for(lambda shown: tables(shown) >= 2)
        terminal.type("\x03")  # Ctrl-C
        assert terminal.end() == 0
        assert drawn_in_place(terminal.shown)
        assert "tx frames" in terminal.shown


BACKGROUND = "set -m; {} & echo typing; read line; echo got $line; wait"


def test_nothing_is_drawn_in_the_background(tmp_path: Path) -> None:
    argv = ["serve", "--sandbox", "off", "--socket", str(tmp_path / "s"), "--context", "synthetic:sink"]
    command = shlex.join([*CDNA, *argv, "--for", "1.5"])
    with Terminal(["sh", "-c", BACKGROUND.format(command)]) as terminal:
        terminal.wait_for(lambda shown: "serving: 1 context" in shown)
        terminal.type("a line\n")
        terminal.wait_for(lambda shown: "got a line" in shown)
        assert terminal.end() == 0
        assert "Mbit/s" not in terminal.shown
        assert "tx frames" in terminal.shown  # the totals, at the end
        assert "\x1b" not in terminal.shown


def test_top_in_the_background_waits_for_the_foreground(server: Serve) -> None:
    script = f"set -m; {shlex.join(top(server))} & echo typing; read line; fg"
    with Terminal(["sh", "-c", script]) as terminal:
        terminal.wait_for(lambda shown: "typing" in shown)
        terminal.type("now\n")
        terminal.wait_for(lambda shown: tables(shown) >= 2)
        assert re.search(r"typing\r\nnow\r\n", terminal.shown)
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.parametrize("json", [True, False])
def test_it_ends_with_its_reader(server: Serve, json: bool) -> None:
    argv = [*CDNA, "top", "--socket", str(server.path), "--interval", "3600", *["--json"] * json]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
