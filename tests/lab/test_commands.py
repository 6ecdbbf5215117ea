"""What a client's request has to look like, and what it is refused for, in a lab without namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdna.errors import CdnaError
from cdna.lab.commands import handlers
from cdna.lab.control import ControlClient, ControlServer
from cdna.lab.guest_plans import context_settings, guest_plan
from cdna.lab.lab import Lab
from cdna.lab.plan import NETS, LabPlan


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ControlClient]:
    plan = guest_plan("", context_settings("", "synthetic:s"), {}, NETS)
    path = str(tmp_path / "lab.sock")
    with (
        Lab(LabPlan((plan,))) as lab,
        ControlServer(path, handlers(lab, None)),
        ControlClient(path) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("command", "fields", "said"),
    [
        ("show", {}, "no guest is named; give one"),
        ("show", {"guest": ["s"]}, "no guest is named; give one"),
        ("add", {"settings": "name=x"}, "no settings are given; give some"),
        ("link", {"guest": "s", "up": "no"}, "link: give up or down"),
        ("enter", {"guest": "s"}, "a synthetic guest; programs run inside namespaces only"),
    ],
    ids=["no guest", "a list for a guest", "a text for settings", "a text for up", "no namespace"],
)
def test_what_is_refused(client: ControlClient, command: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CdnaError, match=f"{said}$"):
        client.call(command, **fields)
    assert client.call("show", guest="s")[0]["guest"]["link"] == "up"


def test_a_file_is_kept_for_who_has_entered_a_guest(client: ControlClient, tmp_path: Path) -> None:
    """Nobody else has a hosts file of this lab's."""
    path = tmp_path / "file"
    path.write_text("mine")
    with path.open("r+b") as file, pytest.raises(CdnaError, match="keep: enter a guest first"):
        client.call("keep", send_fds=(file.fileno(),))
    assert path.read_text() == "mine"


def test_no_file_is_kept_of_none(client: ControlClient) -> None:
    with pytest.raises(CdnaError, match="keep: give one descriptor, of a hosts file"):
        client.call("keep")
