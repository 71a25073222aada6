"""The block `plasticity`: what keeps a network that is partly used able to learn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fgadahat_hooks.spec.base import Block, Flag, Positive


class PlasticitySpec(Block):
    """What keeps the units that finished tasks left open to learning. This library's own additions."""

    rescale: Flag = Field(
        default=False,
        description="Before a task, give the incoming weights of the units that are free, and those of the head, the "
        "scale that they had before the first task, over the root of the share of open inputs: a unit then gets the "
        "signal that it gets without gates.",
    )
    learning_rates: Literal["as_given", "by_share"] = Field(
        default="as_given",
        description="'by_share': with SGD, Adam and its kin, a layer's learning rate is raised by the share of its "
        "inputs that are open and the share of its units that the task can train. 'as_given': left as it is.",
    )
    norm_statistics: Literal["running", "measured"] = Field(
        default="measured",
        description="Running statistics that a task's norms are stored with. 'measured': when the task ends, they are "
        "averaged anew over its last batches under the hard mask that is served (at most 64 batches and 64 MiB of "
        "inputs are kept for it). 'running': as training left them.",
    )
    gain_factor: Positive = Field(
        default=10.0,
        description="Factor on the learning rate of a task's gains and biases of units (`gates.gains`), with Adam and "
        "its kin and 'learning_rates: by_share' (with SGD it is 0.1); no unit.",
    )
    norm_factor: Positive = Field(
        default=1.0,
        description="The same for the scale and shift that a task has of its norms, with Adam and its kin; no unit.",
    )
    calibrated_std: Positive = Field(
        default=0.5,
        description="Standard deviation to which the gains of the units of earlier tasks are set at a task's first "
        "batch, with mean 0 (`gates.gains`); no unit.",
    )
    max_factor: Positive = Field(
        default=8.0, description="Limit of a learning rate's factor that comes from closed inputs alone; no unit."
    )
    max_step: Positive = Field(
        default=0.2,
        description="Limit of a raised learning rate, as a part of the standard deviation of the layer's weights "
        "before the first task; no unit.",
    )
