"""The architectures that CDNA is compared with."""
