"""`cdna doctor`: a report of this machine, whatever it is."""

import json
from pathlib import Path

from cdna.doctor import CHECKS
from tests.cli.conftest import Cdna


def test_report_and_json(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    ended = cdna("doctor", "--json", str(path))
    assert ended.status == 0
    assert ended.err == ""
    tree = json.loads(path.read_text())
    assert {"kernel", "cores", "date"} <= tree["host"].keys()
    findings = tree["findings"]
    assert {finding["part"] for finding in findings} == set(CHECKS)
    lines = [line.split() for line in ended.out.splitlines()]
    for finding in findings:
        assert finding.keys() == {"part", "subject", "state", "found", "meaning", "mend"}
        assert finding["state"] in ("ok", "slower", "missing")
        assert [*finding["subject"].split(), finding["state"]] in [
            line[: len(finding["subject"].split()) + 1] for line in lines
        ]
    counts = [sum(finding["state"] == state for finding in findings) for state in ("ok", "slower", "missing")]
    assert ended.out.splitlines()[-1] == "{} ok, {} slower, {} missing".format(*counts)


def test_a_command_that_mends_stands_under_what_it_mends(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    lines = [line.strip() for line in cdna("doctor", "--json", str(path)).out.splitlines()]
    for finding in json.loads(path.read_text())["findings"]:
        assert finding["mend"] is None or finding["mend"] in lines
        assert finding["state"] != "ok" or finding["mend"] is None


def test_a_place_where_no_file_can_be(cdna: Cdna, tmp_path: Path) -> None:
    ended = cdna("doctor", "--json", str(tmp_path / "none" / "x.json"))
    assert ended.status == 2
    assert ended.out == ""
    assert "make it first" in ended.error
