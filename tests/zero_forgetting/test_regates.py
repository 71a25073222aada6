"""Norms over channels of several layers: their output is gated again, and finished tasks keep their bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.graph.unit_graph import InputMap
from tests.differential.truth import measure
from tests.support.forgetting import History
from tests.support.learning import recipe
from tests.support.zoo_models import CLASSES, images, randomise

WIDTH = 24


class _Base(nn.Module):
    """A stem, two layers with a norm between, a head; a subclass defines what the norm reads."""

    def __init__(self, wide: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.a = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.norm = norm(wide)
        self.b = nn.Conv2d(wide, 2 * WIDTH, 3, padding=1)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        joined = self.join(x, self.a(x.relu()))
        out: Tensor = self.head(F.leaky_relu(self.b(self.norm(joined).relu())).mean((2, 3)))
        return out


class Concatenation(_Base):
    """DenseNet's."""

    def __init__(self) -> None:
        super().__init__(2 * WIDTH, nn.BatchNorm2d)

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1)


class Sum(_Base):
    """A pre-activation residual block's."""

    def __init__(self) -> None:
        super().__init__(WIDTH, nn.BatchNorm2d)

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Grouped(Sum):
    """Statistics over groups of channels."""

    def __init__(self) -> None:
        _Base.__init__(self, WIDTH, lambda n: nn.GroupNorm(3, n))


class Layered(Sum):
    """Statistics over all channels, which are last."""

    def __init__(self) -> None:
        _Base.__init__(self, WIDTH, nn.LayerNorm)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.norm((x + self.a(x.relu())).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = self.head(self.b(y.relu()).relu().mean((2, 3)))
        return out


class Product(Sum):
    """Two gated factors: zero where either is."""

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return (x * y).clamp(-3, 3)


class AlsoReadElsewhere(Sum):
    """A norm over one layer's units, whose raw output has another reader."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.a(self.stem(images).relu())
        out: Tensor = self.head(self.b(self.norm(x).relu() + x).relu().mean((2, 3)))
        return out


class Twice(Sum):
    """A norm that runs on the channels of two different layers has no mask of its own."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        y = self.norm(self.a(self.norm(x).relu()))
        out: Tensor = self.head(self.b(y.relu()).relu().mean((2, 3)))
        return out


MODELS = {c.__name__: c for c in (Concatenation, Sum, Grouped, Layered, Product, AlsoReadElsewhere, Twice)}
REGATED = [name for name in MODELS if name != "Twice"]


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = MODELS[name]()
    randomise(model, images(16))
    return model


@pytest.mark.parametrize("optimizer", ["adamw", "sgd_kept"])
@pytest.mark.parametrize("name", MODELS)
def test_earlier_tasks_keep_their_logits(name: str, optimizer: str) -> None:
    history, how = History(build(name)), recipe(optimizer)
    for task in ("birds", "cars", "boats"):
        history.learn(task, how)
        assert history.changed() == []
    assert not history.session.verify().leaks


@pytest.mark.parametrize("name", REGATED)
def test_every_zero_behind_the_norm_is_known(name: str) -> None:
    model = build(name)
    session = fh.attach(model, {}, images(1))
    assert list(session.graph.regates) == ["norm"]
    assert not session.graph.inputs["b"].live.any()
    assert "norm (100%)" in str(session.plan)
    session.detach()
    truth = measure(model, lambda m: m(images(2)), draws=4)
    assert truth.wrong == ()
    assert truth.exact > 0.99


def test_a_norm_without_a_mask_of_its_own_is_live() -> None:
    session = fh.attach(build("Twice"), {}, images(1))
    assert session.graph.regates == {}
    assert session.graph.inputs["b"].live.all()


def test_gates_on_outputs_only_leave_norms_alone() -> None:
    session = fh.attach(build("Sum"), {"gates": {"position": "output"}}, images(1))
    assert session.graph.regates == {}


def test_a_norm_without_parameters_is_live() -> None:
    model = build("Sum")
    model.norm = nn.BatchNorm2d(WIDTH, affine=False)
    session = fh.attach(model, {}, images(1))
    assert session.graph.regates == {}


@pytest.mark.parametrize("name", REGATED)
def test_the_mask_of_a_channel(name: str) -> None:
    """Equal to the slow definition: 1 where live, else of each set the largest mask, of the sets the smallest."""
    model = build(name)
    session = fh.attach(model, {}, images(1))
    masks = {n: torch.rand(u.units) for n, u in session.graph.layers.items()}
    seen: list[Tensor] = []
    with session._attached.gate_context.override(GateMode.USE, masks), torch.no_grad():
        norm = model.get_submodule("norm")
        handle = norm.register_forward_pre_hook(lambda m, _: seen.append(m.weight / m._parameters["weight"]))
        model(images(1))
        handle.remove()
    expected = slow_mask(session.graph.regates["norm"], session.graph.join(masks))
    assert torch.allclose(seen[0], expected, atol=1e-6)


def slow_mask(channels: InputMap, values: Tensor) -> Tensor:
    out = []
    for channel in range(channels.features):
        sets: dict[int, list[float]] = {}
        for k in range(len(channels.unit)):
            if channels.feature[k] == channel:
                group = 0 if channels.group is None else int(channels.group[k])
                sets.setdefault(group, []).append(float(values[channels.unit[k]]))
        out.append(1.0 if channels.live[channel] else min(map(max, sets.values()), default=0.0))
    return torch.tensor(out)


@pytest.mark.parametrize("name", REGATED)
def test_embeddings_learn_through_the_norm_s_gate(name: str) -> None:
    """The embeddings get the same gradient as from the same mask built of each gate's own."""
    model = build(name).train()
    session = fh.attach(model, {}, images(1))
    with session.task("birds") as task:
        task.begin_batch(2, 3)
        site = model.norm.__dict__["_hat_site"]
        joint = site.folds[0][1] if hasattr(site, "folds") else site.gate
        weights = torch.rand(joint.channels.features)
        fast = torch.autograd.grad((joint.mask() * weights).sum(), [g.embedding for g in joint.gates])
        masks = torch.cat([gate.mask() for gate in joint.gates])
        slow = torch.autograd.grad(
            (joint.channels.gather_max(masks, 1.0) * weights).sum(), [g.embedding for g in joint.gates]
        )
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-9) for a, b in zip(fast, slow, strict=True))
        assert any(bool(g.any()) for g in fast)
        task.end_batch()
    session.detach()


@pytest.mark.parametrize("name", REGATED)
def test_exports_are_equal_bit_for_bit_and_small_ones_nearly(name: str) -> None:
    history, how = History(build(name)), recipe("adamw")
    history.learn("birds", how)
    history.learn("cars", how)
    session = history.session
    for task, before in history.ended.items():
        plain = session.export(task)
        small = session.export(task, compact=True)
        assert torch.equal(plain.eval()(history.probe), before)
        assert torch.allclose(small.eval()(history.probe), before, atol=1e-5)
        if name in ("Concatenation", "Sum", "AlsoReadElsewhere"):
            assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in plain.parameters())


def test_detach_leaves_the_norm_as_it_was() -> None:
    model = build("Concatenation")
    before = dict(vars(model.norm))
    fh.attach(model, {}, images(1)).detach()
    assert vars(model.norm).keys() == before.keys()
