"""The plan: one row a gated layer, one policy a tensor, and a description of every leak."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import AlreadyAttachedError, BadCallError
from tests.support.small_models import Functional, Net, TwoHeads, batch
from tests.support.zoo_models import BUILDERS, images

PROTECTIONS = ("gated", "per_task", "frozen", "shared")
SPECS: dict[str, dict[str, Any]] = {
    "default": {},
    "shared": {"norms": "share", "rest": "share", "heads": {"mode": "shared"}},
    "frozen": {"norms": "freeze"},
    "some": {"gates": {"targets": "conv*"}},
}


def plan(model: nn.Module, spec: dict[str, Any]) -> fh.Plan:
    return fh.plan(model, spec, batch(1)[0])


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("kind", [Net, Functional, TwoHeads])
def test_counts_add_up_to_all_parameters(kind: type[nn.Module], spec: dict[str, Any]) -> None:
    if kind is not Net and "gates" in spec:
        spec = {"gates": {"targets": "hidden"}}
    model = kind()
    found = plan(model, spec)
    assert sum(map(found.count, PROTECTIONS)) == found.parameters == sum(p.numel() for p in model.parameters())
    assert {t.name for t in found.tensors} == set(model.state_dict())
    assert {t.name for t in found.tensors if t.kind == "buffer"} == {n for n, _ in model.named_buffers()}


POLICIES: dict[str, dict[str, str]] = {
    "default": {"conv1.bias": "gated", "bn1.running_var": "per_task", "scale": "frozen", "counts": "per_task"},
    "shared": {"conv1.bias": "gated", "bn1.running_var": "shared", "scale": "shared", "head.weight": "shared"},
    "frozen": {"bn2.weight": "frozen", "head.bias": "per_task"},
    "some": {"conv2.weight": "gated", "hidden.weight": "frozen"},
}


@pytest.mark.parametrize("case", POLICIES)
def test_every_tensor_has_its_policy(case: str) -> None:
    found = {t.name: t.protection for t in plan(Net(), SPECS[case]).tensors}
    assert {name: found[name] for name in POLICIES[case]} == POLICIES[case]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny"])
def test_one_row_a_gated_layer(name: str) -> None:
    model = BUILDERS[name]()
    found = fh.plan(model, {}, images(1))
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and n not in found.heads]
    assert sorted(row.name for row in found.layers) == sorted(layers)
    text = str(found).splitlines()
    assert [line.split()[0] for line in text[2 : 2 + len(layers)]] == [row.name for row in found.layers]
    assert text[-1] == "Finished tasks keep their outputs bit for bit."


def test_rows_of_resnet18_name_sites_and_producers() -> None:
    rows = {row.name: row for row in fh.plan(BUILDERS["resnet18"](), {}, images(1)).layers}
    assert len(rows) == 20
    assert rows["conv1"].producers == {}
    assert rows["conv1"].sites == ("bn1",)
    assert rows["layer1.0.conv1"].producers == {"conv1": 64}
    assert rows["layer2.0.conv1"].producers == {"conv1": 64, "layer1.0.conv2": 64, "layer1.1.conv2": 64}
    assert all(row.position == "after_norm" for row in rows.values())
    assert all(row.resolved == (0 if name == "conv1" else 1) for name, row in rows.items())


def test_positions_and_users_of_weights() -> None:
    assert {row.name: row.position for row in plan(Net(), {}).layers} == {
        "conv1": "after_norm",
        "conv2": "after_norm",
        "hidden": "output",
    }
    before = {row.name: row.position for row in plan(Net(), {"gates": {"position": "output"}}).layers}
    assert set(before.values()) == {"output"}
    row = plan(Functional(), {}).layers[0]
    assert (row.position, row.sites) == ("weight", ("",))
    assert "on weight rows in the model" in str(plan(Functional(), {}))


def test_leaks_are_described() -> None:
    found = plan(Net(), {**SPECS["shared"], "adjustment": {"mode": "hat", "apply_to": "gradient"}})
    reasons = [leak.split(":")[0] for leak in found.leaks]
    assert sorted(reasons) == ["adjustment.apply_to", "heads.mode", "norms", "rest"]
    assert "every task trains 10 tensor(s), first 'bn1.weight'" in " ".join(found.leaks)
    assert "Finished tasks can change, because" in str(found)


class Attention(nn.Module):
    """Attention whose packed weight gets no gate."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.attention(x, x, x)[0].mean(1))
        return out


def test_memory_of_a_task_is_told_and_much_of_it_advised_against() -> None:
    found = fh.plan(Attention(), {"rest": "per_task"}, torch.randn(2, 3, 16))
    own = 4 * (3 * 16 * 16 + 3 * 16 + 16 * 2 + 2)
    assert (found.task_bytes, found.model_bytes) == (own, own + 4 * (16 * 16 + 16))
    assert "Each task keeps 3.4 kB of its own; the model has 4.5 kB." in str(found)
    assert (
        "each task keeps 3.4 kB of its own, 76% of the model, because no gate is on 'attention.in"
        in found.memory_advice[0]
    )
    assert f"  - {found.memory_advice[0]}" in str(found)
    assert fh.plan(Attention(), {"rest": "freeze"}, torch.randn(2, 3, 16)).memory_advice == ()


@pytest.mark.parametrize(
    ("measure", "warned"),
    [("output_weight_gradient_square_sum_x_activation_abs", True), ("input_weight_abs_sum_x_activation_abs", False)],
)
def test_a_measure_that_forgot_much_is_named(measure: str, warned: bool) -> None:
    spec = {"importance": {"type": measure}, "adjustment": {"mode": "fg_adahat"}}
    assert any(f"importance.type: {measure} spans" in leak for leak in plan(Net(), spec).leaks) == warned


def test_a_session_has_the_plan_that_was_announced() -> None:
    model = Net()
    announced = plan(model, {})
    session = fh.attach(model, {}, batch(1)[0])
    assert session.plan == announced
    with pytest.raises(AlreadyAttachedError, match=r"session\.plan"):
        plan(model, {})


def test_needs_example_inputs() -> None:
    with pytest.raises(BadCallError, match="example_inputs"):
        fh.plan(Net(), {})
