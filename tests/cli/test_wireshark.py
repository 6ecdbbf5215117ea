"""`cdna-extcap` as Wireshark runs it, and tshark running it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.cli import wireshark as extcap
from cdna.errors import ResourceError
from tests.support.capture_lab import FakeLab
from tests.support.pcapng import read_pcapng

DEADLINE = 60  # seconds
PROGRAM = [sys.executable, "-m", "cdna.cli.wireshark"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FakeLab]:
    (tmp_path / "cdna").mkdir()
    lab = FakeLab(tmp_path / "cdna" / "lab.sock")
    yield lab
    lab.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where programs find the lab without being told."""
    return {
        **os.environ,
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert extcap.main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_interfaces_are_the_contexts_of_the_lab(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.machine.attach("{odd} \N{SNOWMAN}")
    lines = said(capsys, "--extcap-interfaces", "--extcap-version=4.0", "--socket", lab.path)
    assert lines[0].startswith("extcap {version=")
    assert lines[1:] == [
        "interface {value=cdna-all}{display=CDNA, all contexts}",
        "interface {value=cdna-alice.0}{display=CDNA context alice.0, 02:cd:0a:00:00:00}",
        "interface {value=cdna-bob.1}{display=CDNA context bob.1, 02:cd:0a:00:00:01}",
        "interface {value=cdna-2}{display=CDNA context _odd_ _.2, 02:cd:0a:00:00:02}",
    ]


def test_without_a_lab_there_is_no_interface(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(said(capsys, "--extcap-interfaces", "--socket", str(tmp_path / "none"))) == 1


def test_what_an_interface_is(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--extcap-interface", "cdna-all")
    assert said(capsys, "--extcap-dlts", *given) == ["dlt {number=1}{name=EN10MB}{display=Ethernet}"]
    assert all(line.startswith("arg {number=") for line in said(capsys, "--extcap-config", *given))
    assert "display filter" in said(capsys, *given, "--extcap-capture-filter", "tcp")[0]


def test_a_capture_goes_to_the_pipe_until_it_is_told_to_end(lab: FakeLab, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = ["--capture", "--extcap-interface", "cdna-bob.1", "--fifo", str(fifo), "--socket", lab.path]
    with subprocess.Popen([*PROGRAM, *argv, "--snaplen", "20", "--buffer", "1", "--later-option"]) as process:
        with fifo.open("rb") as pipe:
            data = pipe.read(1000)
            process.send_signal(signal.SIGTERM)
            data += pipe.read()
        assert process.wait(timeout=DEADLINE) == 0
    capture = read_pcapng(data)
    assert [interface.name for interface in capture.interfaces] == ["bob.1"]
    assert {(packet.comment, len(packet.data)) for packet in capture.packets} == {("received", 20)}
    assert capture.interfaces[0].received == len(capture.packets)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ((), "cdna capture --install-extcap"),
        (("--capture", "--fifo", "x"), "give --extcap-interface cdna-NAME and --fifo PATH"),
        (("--capture", "--extcap-interface", "eth0", "--fifo", "x"), "give --extcap-interface cdna-NAME"),
        (("--capture", "--extcap-interface", "cdna-nobody", "--fifo", "x"), "no guest or context 'nobody'"),
        (("--capture", "--extcap-interface", "cdna-all", "--fifo", "/no/fifo"), "/no/fifo: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(
    lab: FakeLab, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], line: str
) -> None:
    assert extcap.main([*argv, "--socket", lab.path]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("cdna-extcap: ")
    assert line in err


def test_installing_links_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "bin" / "cdna-extcap"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    monkeypatch.setenv("WIRESHARK_EXTCAP_DIR", str(tmp_path / "extcap"))
    for _ in range(2):
        assert str(tmp_path / "extcap") in extcap.install()
        assert (tmp_path / "extcap" / "cdna-extcap").readlink() == program
    (tmp_path / "extcap" / "cdna-extcap").unlink()
    (tmp_path / "extcap" / "cdna-extcap").write_text("somebody's own")
    with pytest.raises(ResourceError, match=r"file exists; as its owner: ln -s"):
        extcap.install()


def tshark(folder: Path, environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs tshark with `folder` for its extcaps. Run by root it takes no such word: there it is mounted."""
    environment = {**environment, "WIRESHARK_EXTCAP_DIR": str(folder)}
    command = ["tshark", *argv]
    if os.geteuid() == 0:
        listed = subprocess.run(["tshark", "-G", "folders"], capture_output=True, text=True, check=True)
        (place,) = (
            line.split(":")[1].strip()
            for line in listed.stdout.splitlines()
            if line.startswith("Extcap path")
        )
        command = [
            "unshare",
            "-m",
            "sh",
            "-c",
            'mount --bind "$0" "$1" && shift && exec "$@"',
            folder,
            place,
            *command,
        ]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def can_run_extcaps() -> bool:
    if shutil.which("tshark") is None or shutil.which("dumpcap") is None:
        return False
    return os.geteuid() != 0 or not subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode


@pytest.mark.skipif(not can_run_extcaps(), reason="no tshark and dumpcap, or root without mount namespaces")
def test_tshark_lists_the_contexts_and_captures(
    lab: FakeLab, tmp_path: Path, environment: dict[str, str]
) -> None:
    folder = tmp_path / "extcap"
    folder.mkdir()
    program = folder / "cdna-extcap"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cdna.cli.wireshark "$@"\n')
    program.chmod(0o755)
    listed = tshark(folder, environment, "-D").stdout
    for name in ("cdna-all", "cdna-alice.0", "cdna-bob.1"):
        assert f" {name} (" in listed, listed
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]
    seen = tshark(folder, environment, "-i", "cdna-alice.0", "-c", "5", *fields)
    assert seen.stdout.splitlines() == ["alice.0\tsent"] * 5, seen.stderr
