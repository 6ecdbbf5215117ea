"""`cdna ctl` without a lab: where it looks for one."""

import pytest

from cdna.cli import main


@pytest.mark.parametrize("order", [("--socket", "PATH", "list"), ("list", "--socket", "PATH")])
def test_the_socket_before_and_behind_the_subcommand(order, capsys, tmp_path):
    path = str(tmp_path / "none.sock")
    assert main(["ctl", *(path if word == "PATH" else word for word in order)]) == 2
    expected = (
        f"cdna ctl: no lab is running at {path}: start one with cdna up or serve, or give its --socket\n"
    )
    assert capsys.readouterr().err == expected


def test_the_one_behind_is_the_one_that_counts(capsys, tmp_path):
    first, last = str(tmp_path / "first.sock"), str(tmp_path / "last.sock")
    assert main(["ctl", "--socket", first, "list", "--socket", last]) == 2
    assert last in capsys.readouterr().err
