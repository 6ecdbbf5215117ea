"""The hostile guest that tests, fuzzers and benchmarks share is the package's own."""

from cdna.guest_driver.hostile import EOP, PRODUCER, RX, TX, Desc, Hostile, descriptors

__all__ = ["EOP", "PRODUCER", "RX", "TX", "Desc", "Hostile", "descriptors"]
