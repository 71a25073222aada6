"""Proof of zero forgetting on the user's model, run on a copy; and certificates, which later audits compare.

`noise` overwrites everything that later tasks may write; `training` learns scratch tasks with an optimizer of the
user's. Both compare every finished task's logits bit for bit; `leak_search` finds the tensors that changed them.
Nothing here changes the attached model, and no session is imported.
"""

from fgadahat_hooks.verify.audit import AuditReport
from fgadahat_hooks.verify.proof import MakeOptimizer, verify
from fgadahat_hooks.verify.report import TrainingReport, VerifyReport
from fgadahat_hooks.verify.steps import Around, ScratchStep

__all__ = ["Around", "AuditReport", "MakeOptimizer", "ScratchStep", "TrainingReport", "VerifyReport", "verify"]
