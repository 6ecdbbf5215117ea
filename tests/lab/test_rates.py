"""Counters into rates, and names into a hosts file."""

from ipaddress import ip_interface

import pytest

from cdna.base.units import parse_rate, rate_text
from cdna.lab.hosts import hosts_text
from cdna.lab.rates import Rates
from cdna.report.lab_table import guests_table
from cdna.report.style import Style

COUNTERS = {
    "tx_frames": 0,
    "tx_bytes": 0,
    "rx_frames": 0,
    "rx_bytes": 0,
    "rx_drop_no_buffer": 0,
    "tx_drop_vlan": 0,
    "faults": 0,
    "interrupts": 0,
}


def test_rates() -> None:
    rates = Rates()
    (first,) = rates.sample({"a": COUNTERS}, 100.0).values()
    assert (first.tx_frames_s, first.rx_bits_s) == (0, 0)
    later = {**COUNTERS, "tx_frames": 50, "rx_bytes": 1000, "rx_drop_no_buffer": 3, "tx_drop_vlan": 4}
    (second,) = rates.sample({"a": later}, 102.0).values()
    assert (second.tx_frames_s, second.rx_bits_s, second.drops, second.drops_s) == (25, 4000, 7, 3.5)


def test_a_guest_that_comes_later_has_no_rate_yet() -> None:
    rates = Rates()
    rates.sample({"a": COUNTERS}, 1.0)
    traffic = rates.sample({"a": COUNTERS, "b": {**COUNTERS, "tx_frames": 9}}, 2.0)
    assert (traffic["b"].tx_frames, traffic["b"].tx_frames_s) == (9, 0)


def test_hosts() -> None:
    text = hosts_text([("web", [ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")])])
    assert "127.0.0.1\tlocalhost\n" in text
    assert text.endswith("10.0.0.1\tweb\nfd00::1\tweb\n")


@pytest.mark.parametrize("text", ["100M", "1.5G", "2K", "1T", "999"])
def test_rates_are_shown_as_they_are_given(text: str) -> None:
    assert rate_text(parse_rate(text)) == text


def test_a_mac_is_no_emoji() -> None:
    row = {
        "guest": "a",
        "context": 0,
        "state": "running",
        "link": "up",
        "mac": "02:cd:0a:00:00:00",
        "addresses": [],
        "vlan": 0,
        "weight": 1,
        "rate": 0,
        "protection": "validated",
    }
    style = Style()
    assert "02:cd:0a:00:00:00" in style.render(guests_table([row], style))
