"""Measures the native path alone."""
