"""Attached models in double precision with gates half open, and captum's attributions of their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.models.vision_transformer import VisionTransformer

import fgadahat_hooks as fh
from fgadahat_hooks.graph.unit_graph import GATE
from fgadahat_hooks.importance.attribution import Site
from fgadahat_hooks.importance.attribution.no_side_effects import no_side_effects


class SkipNet(nn.Module):
    """A small convolutional network with norms, a skip connection, groups, dropout and a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.left, self.left_norm = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        self.right = nn.Conv2d(6, 6, 1)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(inplace=True), nn.ReLU(), nn.ReLU()
        self.drop, self.pool = nn.Dropout(0.5), nn.MaxPool2d(2)
        self.hidden, self.head = nn.Linear(6 * 16, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.norm(self.stem(x)))
        h = self.relu2(self.left_norm(self.left(h)) + self.right(h))
        h = self.relu3(self.hidden(self.drop(self.pool(h)).flatten(1)))
        logits: Tensor = self.head(h)
        return logits


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 4))


def vit() -> nn.Module:
    made: nn.Module = VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=4
    )
    nn.init.normal_(
        made.get_parameter("heads.head.weight")
    )  # torchvision initialises it to zero, with which every attribution is zero
    return made


class Kinds(nn.Module):
    """One layer of each other type that captum supports, in sequence: on images, volumes, sequences and tokens."""

    def __init__(self) -> None:
        conv1d: Any = import_module("transformers.pytorch_utils").Conv1D  # imported here: it takes seconds
        super().__init__()
        self.up, self.volume = nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3), nn.Conv3d(6, 4, (1, 4, 4), stride=4)
        self.deep = nn.ConvTranspose3d(4, 6, (2, 1, 1), groups=2)
        self.line, self.longer = nn.Conv1d(12, 6, 3, groups=2), nn.ConvTranspose1d(6, 5, 3)
        self.tokens, self.head = conv1d(7, 5), nn.Linear(7, 4)
        self.relu1, self.relu2, self.relu3, self.tanh = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.volume(self.up(x)[:, :, None]))
        h = self.relu2(self.deep(h)).flatten(1, 2).flatten(2)
        h = self.relu3(self.longer(self.line(h))).transpose(1, 2).contiguous()
        logits: Tensor = self.head(self.tanh(self.tokens(h)).mean(1))
        return logits


MODELS: dict[str, Callable[[], nn.Module]] = {
    "kinds": Kinds,
    "mlp": mlp,
    "skipnet": SkipNet,
    "resnet18": lambda: resnet18(num_classes=4),
    "vit": vit,
}


@dataclass
class Gated:
    """An attached model inside a task, in double precision."""

    session: fh.Session
    x: Tensor
    y: Tensor

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.session.model

    @contextmanager
    def in_evaluation(self) -> Iterator[None]:
        """Run the block as an attribution does: in evaluation mode, gates fixed at their current values."""
        with self.session._attached.gate_context.constant_masks(), no_side_effects(self.model):
            yield

    def sites(self, attribute_to: str) -> dict[str, Site]:
        """Return where each layer's units are seen."""
        out = {}
        for name, layer in self.session._attached.layers().items():
            if attribute_to == "gate":
                module, axis = layer.reader, layer.info.output_axis
            else:
                module, axis = layer.module, layer.kind.unit_axis
            assert module is not None
            out[name] = Site(name, layer.info.units, module, axis, attribute_to == "layer")
        return out


@contextmanager
def gated(name: str, batch: int = 3, spec: dict[str, Any] | None = None) -> Iterator[Gated]:
    """Attach a model and begin a task whose gates are neither open nor closed."""
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name]().double()
        size = 32 if name == "resnet18" else 8
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
        x = torch.randn(batch, 3, size, size, generator=generator, dtype=torch.float64)
        session = fh.attach(model, spec, x[:1])
        with session.task("a") as task:
            task.anneal(2, 200)  # a scale of about 2
            yield Gated(session, x, torch.arange(batch) % 4)


def mean_abs(value: Tensor, axis: int) -> Tensor:
    """Return the mean of `|value|` over all axes but one."""
    return value.detach().abs().movedim(axis, 0).flatten(1).mean(1)


def by_captum(method: type, attached: Gated, attribute_to: str, layers: list[str] | None = None, **options: Any) -> Any:
    """Return a captum attribution layer by layer, reduced to one number a unit.

    A gate on a layer's own output acts before captum sees the layer's output, so captum attributes to the gate's input
    instead. Layers whose output is a tensor and None, as of attention, are left out: captum does not support them.
    """
    sites = attached.sites(attribute_to)
    found = {}
    for name in layers or [n for n in sites if not isinstance(sites[n].module, nn.MultiheadAttention)]:
        site, where = sites[name], dict(options)
        before_gate = site.raw and attached.session.graph.layers[name].position == "output"
        module = site.module.get_submodule(GATE) if before_gate else site.module
        where |= {"attribute_to_layer_input": True} if before_gate else {}
        with attached.in_evaluation():
            value = method(attached.model, module).attribute(attached.x, target=attached.y, **where)
        found[name] = mean_abs(value[0] if isinstance(value, tuple) else value, site.axis)
    return found


def loss(attached: Gated) -> Tensor:
    """Return the training loss."""
    return F.cross_entropy(attached.model(attached.x), attached.y)
