"""Guests in the VMM's own process: a driver, and what runs on it."""
