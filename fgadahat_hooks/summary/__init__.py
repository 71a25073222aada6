"""What there is to look at of a run, from a live session or from a saved folder, as plain data.

What belongs here reads and never changes a session. Pictures and pages of it are made in `plots`, `report` and `cli`.
"""

from fgadahat_hooks.summary.accuracy_summary import AccuracySummary, accuracy_summary
from fgadahat_hooks.summary.source import as_summary
from fgadahat_hooks.summary.summary import ACCURACY, RunSummary, accuracy_matrix, read_summary, summarize

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
