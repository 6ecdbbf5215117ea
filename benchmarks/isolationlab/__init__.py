"""The parts of benchmarks/isolation.py: attacks, the stages they are mounted on, what is measured."""
