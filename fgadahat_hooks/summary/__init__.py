"""A run as plain data, from a live session or from a saved folder.

What belongs here reads a session and never changes it: `summary` is the data and how it is read, `accuracy_summary` the
numbers of an accuracy matrix. Figures, pages and tables are made from it in `plots`, `report` and `cli`.
"""

from fgadahat_hooks.summary.accuracy_input import accuracy_matrix
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary, accuracy_summary
from fgadahat_hooks.summary.source import as_summary
from fgadahat_hooks.summary.summary import ACCURACY, RunSummary, read_summary, summarize

__all__ = [
    "ACCURACY",
    "AccuracySummary",
    "RunSummary",
    "accuracy_matrix",
    "accuracy_summary",
    "as_summary",
    "read_summary",
    "summarize",
]
