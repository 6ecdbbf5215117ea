"""Name servers of guests: the file that stands in for the host's, and addresses that are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdna.errors import ConfigError
from cdna.lab import resolver, values
from cdna.lab.guest_plans import guest_plan
from cdna.lab.plan import NETS

STUB = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The host's resolv.conf, and the one of its stub resolver; neither is there yet."""
    own, behind = tmp_path / "resolv.conf", tmp_path / "upstream.conf"
    monkeypatch.setattr(resolver, "RESOLV_CONF", str(own))
    monkeypatch.setattr(resolver, "UPSTREAM", (str(tmp_path / "none.conf"), str(behind)))
    return own, behind


@pytest.mark.parametrize("stub", [STUB, "nameserver 127.0.0.1\nnameserver ::1\n"])
def test_a_stub_resolver_gives_way_to_its_servers(files: tuple[Path, Path], stub: str) -> None:
    own, behind = files
    own.write_text(stub)
    assert (resolver.upstream(), resolver.is_stub()) == (None, True)
    behind.write_text("nameserver 127.0.0.1\n")  # no better
    assert (resolver.upstream(), resolver.is_stub()) == (None, True)
    behind.write_text("nameserver 192.0.2.1\n")
    assert (resolver.upstream(), resolver.is_stub()) == (str(behind), False)


@pytest.mark.parametrize(
    "text", [None, "", "search example.org\n", "nameserver 192.0.2.7\n", f"{STUB}nameserver fe80::1%eth0\n"]
)
def test_servers_that_guests_may_reach_stay(files: tuple[Path, Path], text: str | None) -> None:
    own, behind = files
    behind.write_text("nameserver 192.0.2.1\n")
    if text is not None:
        own.write_text(text)
    assert (resolver.upstream(), resolver.is_stub()) == (None, False)


def test_servers_that_are_given() -> None:
    settings = {"name": "a", "dns": "10.77.0.254,fe80::1%eth0,fe80::2"}
    assert guest_plan("", settings, {}, NETS).dns == ("10.77.0.254", "fe80::1%eth0", "fe80::2%eth0")
    assert guest_plan("", {"name": "a"}, {"dns": ("--dns", ["10.1.1.1"])}, NETS).dns == ("10.1.1.1",)


@pytest.mark.parametrize(
    "value",
    ["127.0.0.53", "::1", "0.0.0.0", "224.0.0.1", "fe80::1%eth1", "dns", "", "1.1.1.1," * 3 + "9.9.9.9"],
)
def test_no_servers(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--dns .*: .*give"):
        values.servers("--dns", value)


def test_link_local_gateways() -> None:
    for word in ("fe80::1", "fe80::1%eth0"):
        (gateway,) = guest_plan("", {"name": "a", "gateway": word}, {}, NETS).gateways
        assert str(gateway) == "fe80::1"
    for word in ("fe80::1%eth1", "2001:db8::1", "169.254.0.1"):
        with pytest.raises(ConfigError, match=r"no neighbour|give an address"):
            guest_plan("", {"name": "a", "gateway": word}, {}, NETS)


@pytest.mark.parametrize("name", ["ip6-localhost", "IP6-Loopback", "ip6-allnodes", "localhost"])
def test_names_of_hosts_files(name: str) -> None:
    with pytest.raises(ConfigError, match="another meaning"):
        values.name("--guests", name)
