"""A finished task as a plain module: masks written into the weights and, if compact, unused units removed.

Words: a *channel* is an id for one position along an axis of a parameter or buffer; a *channel group* is a set of
channels that can only be removed together; the *channel axis* of a tensor is the axis along which its channels lie.
`propagate` carries channel axes through one forward by the rule of each ATen operation, `selection` picks the groups
that can go, `prune` cuts them out, `check` compares outputs. For one more operation, add a rule to a `*_rules.py` file.
Nothing here trains, starts a task or changes the user's model.
"""

from fgadahat_hooks.export.build import export
from fgadahat_hooks.export.report import ExportReport

__all__ = ["ExportReport", "export"]
