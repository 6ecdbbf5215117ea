"""A lab from a TOML file: what it says reaches the plan, and each mistake ends in one line that names it."""

from pathlib import Path

import pytest

from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.lab.plan import LabPlan
from cdna.lab.plan_file import read_plan

WHOLE = """
wire = "tap:cdna0"
net = ["10.9.0.0/16", "fd09::/64"]
host = "10.9.0.1"
socket = "/run/lab.sock"

[defaults]
protection = "none"
rate = "1G"

[[guest]]
name = "web"
mac = "02:00:00:00:00:01"
address = ["10.9.0.10", "fd09::10"]
gateway = "10.9.0.1"
vlan = 5
weight = 2
rate = "100M"

[[guest]]
name = "db"
"""


def read(tmp_path: Path, text: str | bytes) -> LabPlan:
    file = tmp_path / "lab.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_plan(str(file))


def test_all_that_a_file_says(tmp_path: Path) -> None:
    plan = read(tmp_path, WHOLE)
    assert (plan.wire, plan.socket) == ("tap:cdna0", "/run/lab.sock")
    assert [str(net) for net in plan.net] == ["10.9.0.0/16", "fd09::/64"]
    assert [str(address) for address in plan.host] == ["10.9.0.1/16"]
    web, db = plan.guests
    assert (web.name, web.mac, web.vlan, web.weight, web.rate) == ("web", "02:00:00:00:00:01", 5, 2, 1e8)
    assert [str(address) for address in web.addresses] == ["10.9.0.10/16", "fd09::10/64"]
    assert [str(address) for address in db.addresses] == ["10.9.0.2/16", "fd09::2/64"]
    assert (db.rate, db.protection, web.protection) == (1e9, "none", "none")


def test_a_number_of_guests(tmp_path: Path) -> None:
    plan = read(tmp_path, "guests = 3\n")
    assert [guest.name for guest in plan.guests] == ["g1", "g2", "g3"]
    assert plan.wire == "null"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wire = \n", "no TOML: .*line 1"),
        ("\n\n[[guest]\n", "no TOML: .*line 3"),
        (b'a = "\n\n\xff"', "line 3: not UTF-8"),
        pytest.param("guests = " + "9" * 5000, "no TOML: ", id="a number of 5000 digits"),
        ("wires = 'null'", "lab.toml: unknown key 'wires'; the known ones are wire, net"),
        ("wire = 3", "^lab.toml: wire 3: give a text$"),
        ("net = '10.0.0.1/24'", "net 10.0.0.1/24: this is an address in 10.0.0.0/24"),
        ("net = ['10.0.0.0/24', '10.1.0.0/24']", "a second one of IPv4"),
        ("net = '10.0.0.0/31'", "no room for guests"),
        ("host = '10.0.0.1'", "host 10.0.0.1: in none of the lab's networks"),
        ("guests = -1", "guests -1: give a whole number from 0"),
        ("guests = 3\n[[guest]]\nname = 'a'", "not both"),
        ("[guest]\nname = 'a'", "double brackets"),
        ("guest = [1]", r"\[\[guest\]\] 1 1: give a table"),
        ("defaults = 1", r"\[defaults\] 1: give a table of"),
        ("[defaults]\nmac = '02:00:00:00:00:00'", r"\[defaults\]: unknown key 'mac'"),
        ("[defaults]\nweight = 0\n[[guest]]\nname = 'a'", r"\[defaults\] weight 0: give a whole number"),
        ("[[guest]]\nvlan = 3", r"\[\[guest\]\] 1: no name"),
        (
            "[[guest]]\nname = 'a'\n[[guest]]\nname = 'b'\nadress = '::1'",
            r"\[\[guest\]\] 2: unknown key 'adress'",
        ),
        ("[[guest]]\nname = 'a'\nrate = 'fast'", r"\[\[guest\]\] 1, rate fast: give bits a second"),
        ("[[guest]]\nname = 'a'\n[[guest]]\nname = 'a'", "lab.toml: guest a: there are two of this name"),
    ],
)
def test_mistakes(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path, text)
    assert "lab.toml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b", "x" * 300])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResourceError, match="give a TOML file"):
        read_plan(str(tmp_path / name))


def test_a_file_that_never_ends() -> None:
    with pytest.raises(CdnaError, match="give a lab's TOML file"):
        read_plan("/dev/zero")
