"""What a guest in another process may ask for."""

import json

import pytest

from cdna import ConfigError
from cdna.protocol.hypercall import Malformed
from cdna.vmm.policy import Policy, parse_request

GOOD = {"version": 1, "name": "web", "memory": 4096, "settings": {}}


def request(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def settings(**chosen):
    return request(settings=chosen)


def test_a_request():
    parsed = parse_request(settings(mac="02:00:00:00:00:01", tx_ring=64, protection="iommu:shared"), Policy())
    assert (parsed.name, parsed.memory) == ("web", 4096)
    assert (parsed.settings.mac, parsed.settings.tx_ring) == ("02:00:00:00:00:01", 64)
    assert parsed.settings.protection == "iommu:shared"
    assert parsed.settings.remote


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (request(version=2), "protocol version 2: this VMM speaks 1"),
        (request(name=""), "1 to 64 letters"),
        (request(name="a" * 65), "1 to 64 letters"),
        (request(name="two\nlines"), "1 to 64 letters"),
        (request(name=7), "1 to 64 letters"),
        (request(memory=0), "memory of 1 to"),
        (request(memory=2**80), "memory of 1 to"),
        (request(memory=True), "memory of 1 to"),
        (request(memory=4096.0), "memory of 1 to"),
        (settings(tx_ring="64"), "tx_ring is '64': give int"),
        (settings(tx_ring=True), "tx_ring is True: give int"),
        (settings(tx_ring=-1), "a number from 0"),
        (settings(tx_ring=10**4000), "a number from 0"),
        (settings(mac=None), "mac is None: give str"),
        (settings(multicast=[1]), "a list of MAC addresses"),
        (settings(promiscuous=True), "'promiscuous' is not the guest's to choose"),
        (settings(anti_spoof=False), "'anti_spoof' is not the guest's to choose"),
        (settings(remote=False), "'remote' is not the guest's to choose"),
        (settings(mode=2), "'mode' is not the guest's to choose"),
        (settings(protection="none"), "protection 'none': this VMM allows validated"),
        (settings(protection="magic"), "protection 'magic': give one of"),
    ],
)
def test_what_may_not_be_asked_for(payload, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_request(payload[:4096] if b"0000000" not in payload else payload, Policy())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0" * 100,
        b"{",
        b"[" * 4096,
        b"null",
        b'{"version": 1}',
        request(extra=1),
        request(settings=[]),
        b'{"version": 1, "name": "x", "memory": 1%s, "settings": {}}' % (b"0" * 4000),
        b" " * 5000,
        "\ud800".encode("utf-16", "surrogatepass"),
    ],
)
def test_what_is_no_request(payload):
    with pytest.raises((Malformed, ConfigError)):
        parse_request(payload, Policy())


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "1e999", "-1"])
def test_a_number_that_is_none(rate):
    payload = b'{"version": 1, "name": "x", "memory": 1, "settings": {"rate": %s}}' % rate.encode()
    with pytest.raises(ConfigError, match="rate: give a number from 0"):
        parse_request(payload, Policy(choices={"rate"}))


def test_the_operator_decides():
    policy = Policy(
        settings={"vlan": 7, "rate": 1e9, "protection": "none"}, choices={"mac", "rate", "weight"}
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
        {"settings": {"colour": 1}},
        {"settings": {"vlan": -1}},
    ],
)
def test_a_policy_that_cannot_be(options):
    with pytest.raises(ConfigError):
        Policy(**options)
