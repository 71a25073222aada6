"""A yardstick: a random network that is never trained, with gains, biases and a head for each task."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from examples.reproduce.learners import fresh_head, predict, train
from examples.reproduce.nets import head_name
from examples.reproduce.recipe import Recipe
from examples.reproduce.streams import Batches, Stream

Layer = nn.Linear | nn.Conv2d


class Scaled(nn.Module):
    """A layer whose weights stay as they are: each unit's sum is multiplied by a gain, and a bias is added."""

    def __init__(self, layer: Layer) -> None:
        """Take a layer; gains start at 1, biases where the layer has them."""
        super().__init__()
        self.layer = layer
        units = layer.weight.shape[0]
        bias = torch.zeros(units) if layer.bias is None else layer.bias.detach().clone()
        layer.bias = None
        layer.requires_grad_(False)
        self.gain, self.bias = nn.Parameter(torch.ones(units)), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled outputs."""
        shape = (-1, *[1] * (self.layer.weight.dim() - 2))
        scaled: Tensor = self.layer(x) * self.gain.view(shape) + self.bias.view(shape)
        return scaled


class FrozenLearner:
    """Each task trains the gains and biases of all hidden units, from where they started, and a fresh head."""

    def __init__(self, stream: Stream, recipe: Recipe) -> None:
        """Build the network and freeze its weights."""
        self._stream, self._recipe = stream, recipe
        model = stream.network(recipe)
        self._head = head_name(model)
        for name, module in list(model.named_modules()):
            if isinstance(module, Layer) and name != self._head:
                model.set_submodule(name, Scaled(module))
        self.model = model
        self._start = self._of_task()
        self._kept: list[dict[str, Tensor]] = []

    def learn(self, task: int, batches: Batches, epochs: int) -> None:
        """Train what belongs to the next task."""
        self.model.load_state_dict(self._start, strict=False)
        if task:
            self.model.set_submodule(self._head, fresh_head(self.model.get_submodule(self._head)))
        train(self.model, self._recipe, batches, epochs)
        self._kept.append(self._of_task())

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Return the outputs for a task that was learnt."""
        self.model.load_state_dict(self._kept[task], strict=False)
        return predict(self.model, x)

    def looks(self) -> dict[str, float]:
        """Return nothing."""
        return {}

    def _of_task(self) -> dict[str, Tensor]:
        return {name: copy.deepcopy(p.detach()) for name, p in self.model.named_parameters() if p.requires_grad}
