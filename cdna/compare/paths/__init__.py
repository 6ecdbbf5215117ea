"""The architectures that can be compared."""
