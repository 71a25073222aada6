"""Adapters to training frameworks, one file or folder each.

An adapter translates the framework's events to those of a `Task`. It imports only public names of the library, and its
framework; it holds no mathematics. To add one, write its file and a subject for the conformance tests.
"""
