"""Contexts from options: what they say reaches the plan. The mistakes are in tests/cli/test_serve.py."""

import os
from pathlib import Path

import pytest

from cdna.errors import ConfigError
from cdna.lab.guest_plans import context_settings, guest_plan
from cdna.lab.kinds import KINDS, GuestPlan
from cdna.lab.kinds.synthetic import SyntheticPlan
from cdna.lab.kinds.vhost_user import VhostUserPlan
from cdna.lab.plan import NETS, with_addresses
from cdna.lab.plan_file import read_plan


def plan(text: str, defaults: dict[str, tuple[str, object]] | None = None) -> GuestPlan:
    return guest_plan("", context_settings("--context", text), defaults or {}, NETS)


def test_all_of_a_vhost_user_context(tmp_path: Path) -> None:
    text = (
        f"vhost-user:{tmp_path}/vm1.sock,mac=02:00:00:00:00:0A,vlan=trunk,rate=1.5G,weight=7,queues=4,"
        "mtu=9000,mode=client,packed=off,features=-guest_csum,+RSS,anti_spoof=off,promiscuous=on,user=root,memory=4G,"
        "features=-mtu,user=65534"
    )
    assert plan(text) == VhostUserPlan(
        name="vm1",
        mac="02:00:00:00:00:0a",
        vlan="trunk",
        rate=1.5e9,
        weight=7,
        mtu=9000,
        anti_spoof=False,
        path=f"{tmp_path}/vm1.sock",
        client=True,
        queues=4,
        packed=False,
        memory=4 << 30,
        features=("-guest_csum", "+rss", "-mtu"),
        promiscuous=True,
        users=(0, 65534),
    )


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = plan("vhost-user:x.sock,name=vm")
    assert isinstance(made, VhostUserPlan)
    assert (made.name, made.path, made.protection) == ("vm", os.path.join(os.getcwd(), "x.sock"), "table")


def test_all_of_a_synthetic_context() -> None:
    made = plan("synthetic:gen,to=02:00:00:00:00:01,size=1514,rate=1M,protection=none")
    assert made == SyntheticPlan(name="gen", to="02:00:00:00:00:01", size=1514, rate=1e6, protection="none")


def test_a_namespace_with_two_addresses() -> None:
    made = plan("namespace:web,address=10.77.0.9,address=fd77::9,gateway=10.77.0.254,anti_spoof=off")
    assert [str(interface) for interface in made.addresses] == ["10.77.0.9/24", "fd77::9/64"]
    assert made.anti_spoof is False


def test_defaults_reach_those_whom_they_concern(tmp_path: Path) -> None:
    defaults = {key: (key, value) for key, value in {"protection": "none", "rate": "1M"}.items()}
    machine = plan(f"vhost-user:{tmp_path}/vm.sock", defaults)
    assert (machine.rate, machine.protection) == (1e6, "table")
    assert plan("synthetic:gen", defaults).protection == "none"


def test_only_namespaces_are_given_addresses(tmp_path: Path) -> None:
    plans = [
        plan("synthetic:s"),
        plan("namespace:a"),
        plan(f"vhost-user:{tmp_path}/v.sock"),
        plan("namespace:b"),
    ]
    given = with_addresses(plans, NETS)
    assert [str(p.addresses[0].ip) if p.addresses else "" for p in given] == [
        "",
        "10.77.0.1",
        "",
        "10.77.0.2",
    ]
    (late,) = with_addresses([plan("namespace:c")], NETS, (), given)
    assert str(late.addresses[0].ip) == "10.77.0.3"


@pytest.mark.parametrize("kind", KINDS.own)
def test_every_key_is_known_on_the_page(kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    assert [key for key in KINDS[kind].keys if f"`{key}" not in page] == []


def test_a_file_with_contexts(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(
        f'wire = "tap:x"\npoll = "busy"\ncpu = 1\nmetrics = "9177"\n[defaults]\nweight = 5\n'
        f'[[context]]\nkind = "vhost-user"\npath = "{tmp_path}/a.sock"\npacked = false\nuser = ["root"]\n'
        f'features = "-rss, -csum"\n[[context]]\nkind = "vhost-user"\npath = "{tmp_path}/b.sock"\n'
        'features = ["+rss"]\n'
    )
    read = read_plan(str(file))
    assert (read.poll, read.cpu, read.metrics, read.host) == ("busy", 1, "9177", ())
    vm, other = read.guests
    assert isinstance(vm, VhostUserPlan)
    assert isinstance(other, VhostUserPlan)
    assert (vm.features, other.features) == (("-rss", "-csum"), ("+rss",))
    assert (vm.name, vm.weight, vm.packed, vm.users) == ("a", 5, False, (0,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[context]\nkind = 'x'", "give each context a table [[context]], in double brackets"),
        ("[[context]]\nname = 'x'", "[[context]] 1: give it a kind, one of namespace, vhost-user, synthetic"),
        ("[[context]]\nkind = 'vm'", "[[context]] 1, kind vm: give one of namespace, vhost-user, synthetic"),
        (
            "[[context]]\nkind = 'synthetic'\npath = 'x'",
            "[[context]] 1: unknown key 'path'; the known ones are",
        ),
        ("[[context]]\nkind = 'synthetic'", "[[context]] 1, a synthetic guest without name: give one"),
        ("[[context]]\nkind = 'vhost-user'", "[[context]] 1, a vhost-user guest without path: give one"),
        (
            "[[context]]\nkind = 'vhost-user'\npath = 3",
            "[[context]] 1, path 3: give the path of a Unix socket",
        ),
        (
            "[[context]]\nkind = 'synthetic'\nname = 'x'\nsize = 10",
            "[[context]] 1, size 10: give a whole number",
        ),
        ("poll = 'never'", "lab.toml: poll never: give one of adaptive, busy"),
        ("cpu = -1", "lab.toml: cpu -1: give a whole number"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_plan(str(file))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
