"""Texts of rates, sizes and addresses, and what is refused."""

import pytest

from cdna.base.units import MAX_RATE, is_mac, parse_mac, parse_mebibytes, parse_rate, rate_text, size_text
from cdna.errors import ConfigError
from cdna.nic.wires import make_wire
from cdna.settings import SETTINGS, ContextSettings


@pytest.mark.parametrize(
    ("text", "rate"),
    [("0", 0), ("100M", 1e8), (" 1.5g ", 1.5e9), ("2.5K", 2500), ("1T", 1e12), ("3e6", 3e6), ("-1K", -1000)],
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "K", "fast", "1GB", "1 2", "GM"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0", "999", "1K", "1.5M", "100M", "10G", "1T"])
def test_a_rate_as_text_comes_back(text: str) -> None:
    assert rate_text(parse_rate(text)) == text


def test_one_limit_for_rates() -> None:
    ContextSettings(rate=MAX_RATE).options()
    assert SETTINGS["rate"].read("--rate", "1T") == MAX_RATE
    make_wire("null:rate=1T").close()
    with pytest.raises(ConfigError, match="give up to"):
        ContextSettings(rate=1.1e12).options()
    with pytest.raises(ConfigError, match="at most 1T"):
        SETTINGS["rate"].read("--rate", "1.1T")
    with pytest.raises(ConfigError, match="give bits a second"):
        make_wire("null:rate=1.1T")


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("512M", 512), (" 4g ", 4096), ("1T", 1 << 20), ("0M", None), ("4", None), ("1.5G", None), ("4K", None)],
)
def test_sizes(text: str, mebibytes: int | None) -> None:
    assert parse_mebibytes(text) == mebibytes


@pytest.mark.parametrize(
    ("size", "text"), [(4 << 30, "4G"), (512 << 20, "512M"), (2 << 40, "2T"), (4096, "4096")]
)
def test_sizes_as_text(size: int, text: str) -> None:
    assert size_text(size) == text


def test_addresses() -> None:
    assert parse_mac("02:00:00:00:00:fF") == b"\x02\0\0\0\0\xff"
    for wrong in ("02:00:00:00:00", "02:00:00:00:00:0g", "020000000001", "02:00:00:00:00:01\n", 7):
        assert not is_mac(wrong)
        with pytest.raises(ConfigError, match="give six bytes in hexadecimal"):
            parse_mac(wrong)
