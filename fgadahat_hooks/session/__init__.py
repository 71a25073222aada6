"""The face: `attach` and `load` make a `Session`, through which everything else is done.

What belongs here builds the parts and hands them to each other. It computes nothing, and nothing below imports it.
"""
