"""Every architecture of the catalogue, one process each, and the page that says what was found.

`python -m tests.zoo.sweep` goes through all of them (`make zoo`); `--help` tells the rest.
"""
