"""What a guest in another process may ask for."""

import json

import pytest

from cdna import ConfigError
from cdna.base.units import parse_mac
from cdna.protocol.hypercall import Malformed
from cdna.vmm.policy import Policy, parse_request

GOOD = {"version": 1, "name": "web", "memory": 4096, "settings": {}}


def request(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def settings(**chosen):
    return request(settings=chosen)


def test_a_request():
    parsed = parse_request(settings(tx_ring=64, protection="iommu:shared"), Policy())
    assert (parsed.name, parsed.memory) == ("web", 4096)
    assert (parsed.settings.mac, parsed.settings.tx_ring) == (None, 64)
    assert parsed.settings.protection == "iommu:shared"
    assert parsed.settings.remote


REFUSED = {
    "version": (request(version=2), "protocol version 2: this VMM speaks 1"),
    "no name": (request(name=""), "1 to 64 letters"),
    "long name": (request(name="a" * 65), "1 to 64 letters"),
    "name of two lines": (request(name="two\nlines"), "1 to 64 letters"),
    "number for a name": (request(name=7), "1 to 64 letters"),
    "no memory": (request(memory=0), "memory of 1 to"),
    "much memory": (request(memory=2**80), "memory of 1 to"),
    "more memory": (request(memory=(64 << 20) + 1), "memory of 1 to"),
    "memory as a switch": (request(memory=True), "memory of 1 to"),
    "memory as a fraction": (request(memory=4096.0), "memory of 1 to"),
    "ring as a text": (settings(tx_ring="64"), "tx_ring is '64': give int"),
    "ring as a switch": (settings(tx_ring=True), "tx_ring is True: give int"),
    "negative ring": (settings(tx_ring=-1), "a number from 0"),
    "endless ring": (settings(tx_ring=10**3900), "a number from 0"),
    "address": (settings(mac="02:00:00:00:00:01"), "'mac' is not the guest's to choose: it may choose all"),
    "numbers for groups": (settings(multicast=[1]), "a list of MAC addresses"),
    "promiscuous": (settings(promiscuous=True), "'promiscuous' is not the guest's to choose"),
    "anti_spoof": (settings(anti_spoof=False), "'anti_spoof' is not the guest's to choose"),
    "remote": (settings(remote=False), "'remote' is not the guest's to choose"),
    "mode": (settings(mode=2), "'mode' is not the guest's to choose"),
    "protection": (settings(protection="none"), "protection 'none': this VMM allows validated"),
    "unknown protection": (settings(protection="magic"), "protection 'magic': give one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_not_be_asked_for(case):
    payload, reason = REFUSED[case]
    with pytest.raises(ConfigError, match=reason):
        parse_request(payload, Policy())


NO_REQUEST = {
    "nothing": b"",
    "zeros": b"\0" * 100,
    "half an object": b"{",
    "nested": b"[" * 4096,
    "null": b"null",
    "a field of four": b'{"version": 1}',
    "a fifth field": request(extra=1),
    "a list of settings": request(settings=[]),
    "a long number": b'{"version": 1, "name": "x", "memory": 1%s, "settings": {}}' % (b"0" * 4000),
    "too long": request() + b" " * 4096,
    "half a character": "\ud800".encode("utf-16", "surrogatepass"),
}


@pytest.mark.parametrize("case", NO_REQUEST)
def test_what_is_no_request(case):
    with pytest.raises((Malformed, ConfigError)):
        parse_request(NO_REQUEST[case], Policy())


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "1e999", "-1"])
def test_a_number_that_is_none(rate):
    payload = b'{"version": 1, "name": "x", "memory": 1, "settings": {"rate": %s}}' % rate.encode()
    with pytest.raises(ConfigError, match="rate: give a number from 0"):
        parse_request(payload, Policy(choices={"rate"}))


@pytest.mark.parametrize(
    ("mac", "reason"),
    [
        ("02:00:00:00:01:00", None),
        ("02:00:00:00:01:FF", None),
        ("0A:00:00:00:00:07", None),
        ("02:00:00:00:02:00", "02:00:00:00:02:00: this VMM allows 02:00:00:00:01, 0a:00:00:00:00:07"),
        ("0a:00:00:00:00:08", "this VMM allows"),
        ("52:54:00:12:34:56", "this VMM allows"),
        ("02:00:00:00:01", "MAC address '02:00:00:00:01': give"),
        ("", "MAC address '': give"),
        (None, "mac is None: give str"),
    ],
)
def test_an_address_that_a_guest_chooses_is_one_of_the_operators(mac, reason):
    policy = Policy(macs=["02:00:00:00:01", "0a:00:00:00:00:07"])
    if reason is None:
        assert parse_request(settings(mac=mac), policy).settings.mac_bytes == parse_mac(mac)
    else:
        with pytest.raises(ConfigError, match=reason):
            parse_request(settings(mac=mac), policy)


def test_an_address_that_the_operator_gives_is_the_guests():
    policy = Policy(settings={"mac": "02:00:00:00:00:05"})
    assert parse_request(settings(), policy).settings.mac == "02:00:00:00:00:05"


def test_the_operator_decides():
    policy = Policy(
        settings={"vlan": 7, "rate": 1e9, "protection": "none"}, choices={"rate", "weight"}, macs=["02"]
    )
    parsed = parse_request(settings(weight=3, rate=1e12), policy)
    assert (parsed.settings.vlan, parsed.settings.rate, parsed.settings.weight) == (7, 1e9, 3)
    assert parsed.settings.protection == "none"
    with pytest.raises(ConfigError, match="'tx_ring' is not the guest's to choose: it may choose mac, rate"):
        parse_request(settings(tx_ring=8), policy)
    with pytest.raises(ConfigError, match="memory of 1 to 8192 bytes"):
        parse_request(request(memory=8193), Policy(max_memory=8192))


@pytest.mark.parametrize(
    "options",
    [
        {"protections": ["no"]},
        {"choices": ["colour"]},
        {"choices": ["mac"]},
        {"macs": [""]},
        {"macs": ["02:"]},
        {"macs": ["02:00:00:00:00:01:02"]},
        {"macs": ["gateway"]},
        {"macs": [2]},
        {"settings": {"colour": 1}},
        {"settings": {"vlan": -1}},
    ],
)
def test_a_policy_that_cannot_be(options):
    with pytest.raises(ConfigError):
        Policy(**options)
