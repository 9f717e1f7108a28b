"""Measurements: `python -m benchmarks [names]` runs them and writes benchmarks/results/. Nothing here is a test."""
