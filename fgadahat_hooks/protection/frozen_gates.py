"""Task embeddings that were frozen together with the part of the model that they are in."""

from __future__ import annotations

import warnings

from fgadahat_hooks.errors import LearningWarning
from fgadahat_hooks.gates.attached_model import AttachedModel


def let_gates_learn(attached: AttachedModel) -> None:
    """Make the embeddings trainable again; warn where they have to learn the task's masks.

    Code that freezes a backbone (`requires_grad_(False)`, a trainer's finetuning callback) means its weights. With the
    embeddings frozen too, the task would keep the masks that were drawn for it.
    """
    frozen = [name for name, gate in attached.gates.items() if not gate.embedding.requires_grad]
    for name in frozen:
        attached.gates[name].embedding.requires_grad_(True)
    if frozen and attached.spec.gates.choose == "learn":
        more = "" if len(frozen) == 1 else f" and {len(frozen) - 1} more"
        warnings.warn(
            f"The gate of layer '{frozen[0]}'{more} had been frozen (requires_grad), so that the task would have kept "
            "masks drawn at random; it learns again now. Freeze weights only, not `session.embeddings`, and give these "
            "to the optimizer.",
            LearningWarning,
            stacklevel=4,
        )
