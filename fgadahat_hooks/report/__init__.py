"""Write a run as one self-contained HTML file: no network, no script.

One chart type a file draws SVG text; `charts.py`, `maps.py`, `tiles.py` and `plan_tables.py` choose the values of each
section, and `page.py` fills `templates/`. Values are read from a `RunSummary`; nothing is computed from the model here.
"""

from fgadahat_hooks.report.write import report

__all__ = ["report"]
