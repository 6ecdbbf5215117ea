"""`cdna fuzz --dask`: the same run on the workers of a scheduler, here in a process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cdna

pytest.importorskip("distributed")

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=True, host="127.0.0.1", scheduler_port=0,
                      dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its workers' current directory has a package cdna that must not be imported."""
    program = tmp_path_factory.mktemp("dask") / "cluster.py"
    program.write_text(CLUSTER)
    folder = tmp_path_factory.mktemp("trap")
    (folder / "cdna").mkdir()
    (folder / "cdna" / "__init__.py").write_text("raise SystemExit('of the current directory')")
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


def test_a_run_on_a_cluster(cdna: Cdna, scheduler: str, tmp_path: Path) -> None:
    report = tmp_path / "fuzz.json"
    ended = cdna(
        *("fuzz", "--dask", scheduler, "--campaign", "model", "--seconds", "2", "--seed", "1"),
        *("--json", str(report)),
    )
    assert ended.status == 0, ended.err
    result = json.loads(report.read_text())
    assert result["jobs"] == 2
    assert result["attempts"] >= 100


def test_a_breach_on_a_cluster(cdna: Cdna, scheduler: str, tmp_path: Path) -> None:
    path = tmp_path / "dies.py"
    path.write_text("import os\nclass Dies:\n    def attack(self, guest, random):\n        os.abort()\n")
    ended = cdna("fuzz", "--dask", scheduler, "--attack", str(path), "--seconds", "5", "--out", str(tmp_path))
    assert ended.status == 1, ended.err
    (case,) = tmp_path.glob("fuzz-crash-*.json")
    assert len(json.loads(case.read_text())["case"]["steps"]) == 1


def test_jobs_are_the_clusters(cdna: Cdna) -> None:
    ended = cdna("fuzz", "--dask", "tcp://127.0.0.1:1", "--jobs", "2")
    assert (ended.status, "threads of dask's workers" in ended.error) == (2, True)
