"""A lab from settings: defaults, and what cannot be."""

from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from cdna.errors import ConfigError
from cdna.lab.guest_plans import guest_plan
from cdna.lab.kinds.namespace import NamespacePlan
from cdna.lab.plan import NETS, LabPlan, host_addresses, plain_guests, with_addresses


def addresses(guest: NamespacePlan) -> list[str]:
    return [str(interface) for interface in guest.addresses]


def test_guests_are_numbered() -> None:
    plans = [guest_plan("", settings, {}, NETS) for settings in plain_guests(10)]
    plans = with_addresses(plans, NETS)
    assert [plan.name for plan in plans] == [f"g{n}" for n in range(1, 11)]
    assert addresses(plans[0]) == ["10.77.0.1/24", "fd77::1/64"]
    assert addresses(plans[9]) == ["10.77.0.10/24", "fd77::a/64"]


def test_host_has_the_last_address() -> None:
    assert [str(a) for a in host_addresses(NETS)] == ["10.77.0.254/24", "fd77::fe/64"]
    assert [str(a) for a in host_addresses([ip_network("10.0.0.0/29")])] == ["10.0.0.6/29"]
    assert [str(a) for a in host_addresses([ip_network("fd00::/64")])] == ["fd00::fffe/64"]


def test_an_address_that_somebody_chose_is_given_to_nobody_else() -> None:
    chosen = NamespacePlan("b", addresses=(ip_interface("10.77.0.1/24"),))
    plans = with_addresses([NamespacePlan("a"), chosen, NamespacePlan("c")], NETS)
    assert addresses(plans[0]) == ["10.77.0.2/24", "fd77::2/64"]
    assert addresses(plans[1]) == ["10.77.0.1/24"]
    assert addresses(plans[2]) == ["10.77.0.3/24", "fd77::3/64"]


def test_a_network_is_used_to_its_last_address_and_no_further() -> None:
    net = [ip_network("10.0.0.0/29")]  # six addresses, one of them the host's
    host = host_addresses(net)
    plans = with_addresses([NamespacePlan(f"g{n}") for n in range(5)], net, host)
    LabPlan(tuple(plans), net=tuple(net), host=host)
    with pytest.raises(ConfigError, match=r"no address is left in 10\.0\.0\.0/29"):
        with_addresses([NamespacePlan("late")], net, host, plans)


def test_settings_reach_the_plan() -> None:
    settings = {
        "name": "web",
        "mac": "02:00:00:00:00:0A",
        "address": ["10.77.0.9", "fd77::9/64"],
        "gateway": "10.77.0.254",
        "vlan": "trunk",
        "weight": 3,
        "rate": "1.5G",
        "protection": "iommu:shared",
        "mtu": 9000,
    }
    plan = guest_plan("", settings, {}, NETS)
    assert plan.mac == "02:00:00:00:00:0a"
    assert addresses(plan) == ["10.77.0.9/24", "fd77::9/64"]
    assert [str(gateway) for gateway in plan.gateways] == ["10.77.0.254"]
    assert (plan.vlan, plan.weight, plan.rate) == ("trunk", 3, 1.5e9)
    assert (plan.protection, plan.mtu) == ("iommu:shared", 9000)


def test_own_settings_come_before_defaults() -> None:
    defaults = {"rate": ("--rate", "10M"), "vlan": ("--vlan", "7")}
    plan = guest_plan("", {"name": "a", "rate": "20M"}, defaults, NETS)
    assert (plan.rate, plan.vlan) == (20e6, 7)


@pytest.mark.parametrize(
    ("text", "rate"), [("0", 0), ("100M", 1e8), ("1g", 1e9), ("2.5K", 2500), (5000, 5000), ("1T", 1e12)]
)
def test_rates(text: object, rate: float) -> None:
    assert guest_plan("", {"name": "a", "rate": text}, {}, NETS).rate == rate


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("name", "", "letters, digits and hyphens"),
        ("name", "9lives", "a letter first"),
        ("name", "a.b", "letters, digits and hyphens"),
        ("name", "a" * 64, "1 to 63"),
        ("name", "-a", "a letter first"),
        ("name", "a-", "letters"),
        ("name", "localhost", "another meaning"),
        ("name", "Host", "another meaning"),
        ("name", 5, "letters"),
        ("mac", "02:00", "six bytes"),
        ("mac", "01:00:00:00:00:00", "even first byte"),
        ("mac", "00:00:00:00:00:00", "even first byte"),
        ("address", "10.77.0.300", "such as 10.77.0.5"),
        ("address", "10.78.0.1", "none of the lab's networks"),
        ("address", "10.77.0.0", "network's own"),
        ("address", "10.77.0.255", "network's own"),
        ("address", "224.0.0.1/24", "single device"),
        ("address", "127.0.0.1/8", "single device"),
        ("address", 5, "a list of texts"),
        ("address", [5], "a list of texts"),
        ("gateway", "10.9.9.9", "no neighbour"),
        ("gateway", "router", "such as 10.77.0.254"),
        ("gateway", "10.77.0.253,10.77.0.254", "a second one of IPv4"),
        ("vlan", 4095, "1 to 4094"),
        ("vlan", "-1", "1 to 4094"),
        ("vlan", True, "1 to 4094"),
        ("weight", 0, "1 to 1000"),
        ("weight", "1.5", "whole number"),
        ("rate", "fast", "such as 100M"),
        ("rate", "-1", "such as 100M"),
        ("rate", "nan", "such as 100M"),
        ("rate", "inf", "such as 100M"),
        ("rate", float("nan"), "such as 100M"),
        ("rate", 10**400, "such as 100M"),
        ("rate", "2T", "at most 1T"),
        ("rate", "1MM", "such as 100M"),
        ("protection", "strong", "iommu:shared"),
        ("protection", "iommu:single-use", "iommu:shared"),
        ("mtu", 1279, "1280 to 9000"),
        ("mtu", 9001, "1280 to 9000"),
    ],
)
def test_what_cannot_be(key: str, value: Any, advice: str) -> None:
    settings = {"name": "a", **{key: value}}
    with pytest.raises(ConfigError, match=advice) as caught:
        guest_plan("here: ", settings, {}, NETS)
    assert str(caught.value).startswith(f"here: {key} ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "A"}, "two of this name"),
        ({"address": "10.77.0.1"}, r"address 10\.77\.0\.1 is taken by a"),
        ({"address": "10.77.0.254"}, r"address 10\.77\.0\.254 is taken by the host"),
        ({"mac": "02:00:00:00:00:01"}, "MAC address 02:00:00:00:00:01 is taken by a"),
    ],
)
def test_what_two_cannot_share(settings: dict[str, str], said: str) -> None:
    first = {"name": "a", "address": "10.77.0.1", "mac": "02:00:00:00:00:01"}
    second = {"name": "b", "address": "10.77.0.2", **settings}
    plans = tuple(guest_plan("", given, {}, NETS) for given in (first, second))
    with pytest.raises(ConfigError, match=said):
        LabPlan(plans, host=host_addresses(NETS))
