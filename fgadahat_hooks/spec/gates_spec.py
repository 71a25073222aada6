"""The block `gates`: which layers get gates, how a gate behaves, and how a task's units are chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fgadahat_hooks.spec.base import Block, Count, Patterns, Portion, Positive, SomePatterns
from fgadahat_hooks.spec.patterns import RULE


class GatesSpec(Block):
    """Which layers get gates, and how a gate behaves."""

    targets: SomePatterns = Field(
        default=("all",), description=f"Layers that get gates: a pattern or a list of patterns. {RULE}"
    )
    exclude: Patterns = Field(default=(), description=f"Layers left out of the targets. {RULE}")
    position: Literal["auto", "output"] = Field(
        default="auto",
        description="Where the gate acts. 'auto': after the norm that follows the layer, where it is the layer's only "
        "consumer and keeps its channels, else on the layer's output. 'output': always on the layer's output.",
    )
    s_max: Positive = Field(
        default=400.0,
        description="Largest gate scale s, reached at the end of annealing; no unit. HAT Eq. 3, stable for 25 to 800.",
    )
    annealing_power: Positive = Field(
        default=1.0,
        description="Exponent of a batch's place in its epoch or task, 0 to 1, as the gate scale rises to s_max; no "
        "unit. 1: HAT Eq. 3. Above 1, this library's own addition, gates stay soft for longer.",
    )
    annealing: Literal["task", "epoch"] = Field(
        default="task",
        description="Over what the gate scale rises. 'task': over the task, if its length is known "
        "(`session.task(name, epochs=3)`, or the trainer tells it), with a settled phase at its end; else as 'epoch'. "
        "'epoch': in each epoch anew, HAT Eq. 3.",
    )
    settle: Portion = Field(
        default=0.5,
        description="Share of a task at its end in which its mask is fixed and hard, with 'annealing: task', 0 to 1; "
        "no unit. HAT has no such phase: this library's own addition.",
    )
    clamp_threshold: Positive = Field(
        default=50.0,
        description="Limit of |s e| when the embedding's gradient is compensated; no unit. HAT Sec. 2.5 and its code.",
    )
    embedding_clamp: Positive = Field(
        default=6.0,
        description="Limit of |e| of a task embedding, applied after each step; no unit. HAT Sec. 2.5 and its code.",
    )
    init: Literal["N01", "U-11", "U01", "U-10", "last"] = Field(
        default="N01",
        description="How a task embedding starts: standard normal, uniform in [-1, 1], [0, 1] or [-1, 0], or as the "
        "last task left it. HAT uses 'N01'; the others are CLArena's `task_embedding_init_mode`.",
    )
    choose: Literal["learn", "share"] = Field(
        default="learn",
        description="How a task's units are chosen. 'learn': by training the task embeddings, HAT. 'share': each task "
        "gets its part of the free units of every layer by lot, and all units that finished tasks use stay open to be "
        "read; masks are hard from the first step, and nothing of them is learnt. This library's own addition.",
    )
    tasks: Count | None = Field(
        default=None,
        description="Number of tasks that 'choose: share' makes room for; no unit. More may come: they get the units "
        "that are left.",
    )

    gains: Literal["none", "without_norms"] = Field(
        default="none",
        description="'without_norms': in a model that has no norm, each task has a gain and a bias of every unit that "
        "it opens, old or new; in others, a norm's scale and shift are that. They begin with what "
        "`plasticity.calibrated_std` makes of the task's first batch. 'none': gates only close. This library's own "
        "addition, after feature-wise linear modulation (FiLM).",
    )

    @model_validator(mode="after")
    def _shares_need_tasks(self) -> GatesSpec:
        if self.choose == "share" and self.tasks is None:
            raise ValueError("expected `tasks`, the number of tasks to make room for, with choose: share.")
        return self
