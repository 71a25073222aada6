"""Attributions of a plain model's layers, without gates or sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.importance.attribution import AttributionBatch, AttributionCall, Site, open_attribution_batch
from fgadahat_hooks.importance.attribution.deeplift import DeepliftAbs, contributions
from fgadahat_hooks.importance.attribution.target import label_scores


def layer_site(model: nn.Module, name: str) -> Site:
    """Return where a linear or convolutional layer's own output is seen."""
    module = model.get_submodule(name)
    weight = module.get_parameter("weight")
    return Site(name, len(weight), module, {4: -3, 3: -2}.get(weight.dim(), -1), raw=True)


@contextmanager
def open_plain_batch(
    model: nn.Module, layers: Sequence[str], x: Tensor, y: Tensor | None = None
) -> Iterator[AttributionBatch]:
    """Open a batch; without labels the logit of the first class is attributed."""
    labels = torch.zeros(len(x), dtype=torch.long) if y is None else y
    sites = {name: layer_site(model, name) for name in layers}
    with open_attribution_batch(
        model, sites, AttributionCall((x,), {}, lambda output: label_scores(output, labels))
    ) as found:
        yield found


def measure_layers(
    name: str, model: nn.Module, layers: Sequence[str], x: Tensor, y: Tensor | None = None, **params: Any
) -> dict[str, Tensor]:
    """Return a measure of the layers' own outputs."""
    with open_plain_batch(model, layers, x, y) as found:
        measure = registry.measures.get(name)(attribute_to="layer", **params)
        result: dict[str, Tensor] = measure.compute(found)
    return result


def weighted_layers(model: nn.Module) -> list[str]:
    """Return the names of all linear and convolutional layers but the last."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)][:-1]


def assert_close_by_unit(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float) -> None:
    """Compare unit by unit, with a tolerance relative to the layer's largest value."""
    assert set(theirs) <= set(ours)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=rtol, atol=rtol * float(value.max()), msg=name)


# ------------------------------------------------------------------ small models, and DeepLIFT on them
class Between(nn.Module):
    """A function between two linear layers, the first named `fc`."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], width: int = 6, out: int | None = None, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(5, width, bias), nn.Linear(out or width, 3, bias)
        self.function = function
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.function(self.fc(x)).flatten(1))
        return logits


class Twice(nn.Module):
    """Runs one activation function and one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head, self.act = nn.Linear(5, 5), nn.Linear(5, 3), nn.ReLU(inplace=True)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.act(self.fc(self.act(self.fc(x)))))
        return logits

    def unrolled(self) -> nn.Sequential:
        """Return the same model with a module for each call; the layer is `0` and `2`."""
        once = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), self.head).double()
        for place in (0, 2):
            once[place].load_state_dict(self.fc.state_dict())
        return once


def samples_and_baseline(count: int = 4) -> tuple[Tensor, Tensor]:
    """Draw samples and a baseline."""
    return torch.randn(count, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)


def layer_contributions(model: nn.Module, x: Tensor, start: Any = 0.0, layer: str = "fc", **params: Any) -> Tensor:
    """Return the contributions of one layer's values in its first call, not reduced."""
    with open_plain_batch(model, [layer], x) as opened:
        return contributions(DeepliftAbs(**params), opened, opened.inputs(0.0, start))[layer][0]


def score_change(model: nn.Module, x: Tensor, start: Any = 0.0) -> Tensor:
    """Return the change of the first class's logit."""
    found: Tensor = (model(x) - model(torch.zeros_like(x) + start))[:, 0]
    return found.detach()


def assert_sums_to_score_change(model: nn.Module, x: Tensor, start: Any = 0.0) -> None:
    """Check that the contributions of `fc` sum to the change of the score."""
    found = layer_contributions(model, x, start).flatten(1).sum(1)
    torch.testing.assert_close(found, score_change(model, x, start), rtol=1e-8, atol=1e-11)
