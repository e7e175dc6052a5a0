"""Measures delivery against its peers. `python -m benchmarks --help`."""
