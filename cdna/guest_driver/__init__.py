"""The driver that a guest runs on its context."""
