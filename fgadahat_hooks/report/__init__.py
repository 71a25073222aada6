"""A run as one HTML file that needs nothing else: no network, no script."""

from fgadahat_hooks.report.write import report

__all__ = ["report"]
