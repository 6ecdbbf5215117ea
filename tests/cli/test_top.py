"""`cdna top` and `cdna ctl metrics` of a server that runs."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import CDNA, DEADLINE, Serve, run, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    place = tmp_path_factory.mktemp("top")
    argv = (
        f"--context=vhost-user:{place}/vm.sock",
        "--context=synthetic:sink",
        "--context=synthetic:gen,to=sink,rate=10M",
    )
    with Serve(place / "control", *argv) as server:
        yield server


def top(server: Serve, *argv: str) -> str:
    done = run("top", "--socket", str(server.path), *argv)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_once(server: Serve) -> None:
    head, _, vm, sink, gen = top(server, "--once").splitlines()
    assert head.split()[:5] == ["guest", "kind", "state", "link", "peer"]
    assert vm.split()[:5] == ["vm", "vhost-user", "waiting", "up", "-"]
    assert (sink.split()[0], gen.split()[1]) == ("sink", "synthetic")


def test_once_for_scripts(server: Serve) -> None:
    looks = []

    def has_rates() -> bool:
        (line,) = top(server, "--once", "--json").splitlines()
        looks.append(json.loads(line))
        return all(looks[-1]["guests"][i][rate] > 0 for i, rate in ((1, "rx_frames_s"), (2, "tx_bits_s")))

    wait_for(has_rates)
    vm, sink, gen = looks[-1]["guests"]
    assert (vm["connected"], sink["kind"], gen["state"]) == (False, "synthetic", "running")
    assert looks[-1]["wire"]["wire"] == "null"


def test_lines_until_it_is_interrupted(server: Serve) -> None:
    argv = ["top", "--socket", str(server.path), "--json", "--interval", "0.1"]
    with subprocess.Popen(
        [*CDNA, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        frames = [json.loads(process.stdout.readline())["guests"][2]["tx_frames"] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert frames == sorted(frames)
    assert (process.returncode, err) == (0, "")


def test_the_end_of_the_server(tmp_path: Path) -> None:
    with Serve(tmp_path / "control", "--context=synthetic:sink") as server:
        argv = ["top", "--socket", str(server.path), "--interval", "0.1"]
        with subprocess.Popen([*CDNA, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            server.end(signal.SIGTERM)
            _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2
    assert err.decode().startswith("cdna top: ")


@pytest.mark.parametrize("interval", ["0", "never", "nan", "1e9"])
def test_intervals_that_cannot_be(interval: str) -> None:
    done = run("top", "--interval", interval)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--interval '{interval}': give seconds from" in done.stderr


def test_metrics(server: Serve) -> None:
    text = server.ctl("metrics").stdout
    assert 'cdna_context_connected{context="vm"} 0\n' in text
    assert "# TYPE cdna_context_tx_frames_total counter\n" in text
