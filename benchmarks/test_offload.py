"""Offloads of the NIC: one call on one frame, the call from Python included."""

import pytest
from tests.support.nic_parts import finish_checksum, hash_frame, internet_checksum, segment, verify_checksum

from cdna.abi import OffloadKind

HEADERS = bytes.fromhex(
    "020000000001 020000000002 0800"  # Ethernet
    "4500000000004000 4006 0000 c0000201 c0000202"  # IPv4, 34 bytes with Ethernet's
    "9c40 9c41 00000001 00000001 8010 ffff 0000 0000 0101080a 00000001 00000002"  # TCP, 32 bytes
)
CSUM_START = 34
UDP_HEADERS = 42
CSUM_OFFSET = 16


def tcp_frame(length):
    frame = bytearray(length)
    frame[: len(HEADERS)] = HEADERS
    frame[16:18] = (length - 14).to_bytes(2, "big")
    for at in range(len(HEADERS), length):
        frame[at] = at * 7 & 0xFF
    return frame


def udp_frame(length):
    frame = tcp_frame(length)
    frame[23] = 17
    return frame


def bench(benchmark, frame, function, *arguments):
    """Runs the benchmark; `gbps` in its record are gigabits of frame a second, at the fastest."""
    result = benchmark(function, *arguments)
    if benchmark.stats is not None:
        benchmark.extra_info["gbps"] = round(8e-9 * len(frame) / benchmark.stats.stats.min, 1)
    return result


@pytest.mark.parametrize("length", [64, 1514, 9000])
def test_sum(benchmark, length):
    frame = tcp_frame(max(length, len(HEADERS)))[:length]
    bench(benchmark, frame, internet_checksum, frame)


@pytest.mark.parametrize("length", [1514, 9000])
def test_checksum_finish(benchmark, length):
    frame = tcp_frame(length)
    assert bench(benchmark, frame, finish_checksum, frame, CSUM_START, CSUM_OFFSET) == 0


@pytest.mark.parametrize("length", [1514, 9000])
def test_checksum_verify(benchmark, length):
    frame = tcp_frame(length)
    pseudo = frame[26:34] + (6).to_bytes(2, "big") + (length - CSUM_START).to_bytes(2, "big")
    value = internet_checksum(pseudo) ^ 0xFFFF
    frame[CSUM_START + CSUM_OFFSET : CSUM_START + CSUM_OFFSET + 2] = value.to_bytes(2, "big")
    finish_checksum(frame, CSUM_START, CSUM_OFFSET)
    assert bench(benchmark, frame, verify_checksum, frame)


def test_not_ip(benchmark):
    frame = tcp_frame(1514)
    frame[12:14] = b"\x88\xb5"
    assert not bench(benchmark, frame, verify_checksum, frame)


@pytest.mark.parametrize("mss", [1448, 8948])
def test_tso_64k(benchmark, mss):
    frame, out = tcp_frame(65535), bytearray(65535 + 64 * len(HEADERS))
    fault, lengths = bench(benchmark, frame, segment, frame, out, CSUM_START, CSUM_OFFSET, mss, len(HEADERS))
    assert fault == 0
    assert len(lengths) == -(-(65535 - len(HEADERS)) // mss)


@pytest.mark.parametrize("kind", ["segments", "fragments"])
@pytest.mark.parametrize("mss", [1448, 8944])
def test_udp_64k(benchmark, mss, kind):
    frame, out = udp_frame(65535), bytearray(65535 + 64 * UDP_HEADERS)
    bits = OffloadKind.OFFLOAD_UDP_SEGMENTS if kind == "segments" else OffloadKind.OFFLOAD_UDP_FRAGMENTS
    fault, lengths = bench(benchmark, frame, segment, frame, out, CSUM_START, 6, mss, UDP_HEADERS + bits)
    assert fault == 0
    assert len(lengths) == -(-(65535 - (UDP_HEADERS if kind == "segments" else CSUM_START)) // mss)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_flow_hash(benchmark, protocol):
    frame = tcp_frame(100) if protocol == "tcp" else udp_frame(100)
    bench(benchmark, frame, hash_frame, frame)


def test_copy_64k(benchmark):
    """What the segments would cost as a plain copy."""
    frame, out = tcp_frame(65535), bytearray(65535)
    view = memoryview(out)

    def copy():
        view[:] = frame

    bench(benchmark, frame, copy)
