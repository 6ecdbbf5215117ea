"""Runs the architectures on one machine and compares them."""
