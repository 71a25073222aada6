"""Benchmarks of the cost of training, serving and export; one script each, run by `make bench` or `python -m`."""
