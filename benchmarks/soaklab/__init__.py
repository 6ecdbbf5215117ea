"""Hours of mixed traffic (`benchmarks/soak.py`): who takes part, what is looked at, what is said of it."""
