"""A finished task as a plain module: gates written into the weights, nothing of this library left."""

from fgadahat_hooks.export.build import export
from fgadahat_hooks.export.report import ExportReport

__all__ = ["ExportReport", "export"]
