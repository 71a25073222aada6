"""Proof of zero forgetting on the model at hand, made on a copy.

`noise` overwrites everything that is called free; `training` learns scratch tasks with the user's own optimizer. Both
compare every finished task's logits, bit for bit.
"""

from fgadahat_hooks.verify.proof import MakeOptimizer, verify
from fgadahat_hooks.verify.report import TrainingReport, VerifyReport

__all__ = ["MakeOptimizer", "TrainingReport", "VerifyReport", "verify"]
