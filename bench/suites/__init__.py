"""Benchmarks of every part, each beside its baseline, run by pytest-benchmark: `make bench`."""
