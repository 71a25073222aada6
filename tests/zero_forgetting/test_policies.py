"""Each protection removed in turn: the logits do change, so the proof of zero forgetting can fail."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LeakError
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.gates.sites import NormSite
from fgadahat_hooks.hooks import HookSet
from tests.support.forgetting import History
from tests.support.learning import recipe
from tests.support.zoo_models import build


class Hole(NamedTuple):
    """A missing protection: a leak that the plan must name, and a tensor that `verify` must name if it finds one."""

    spec: dict[str, Any]
    leak: str
    tensor: str | None = None
    model: str = "shufflenet_v2_x0_5"
    optimizer: str = "adamw"


HOLES = {
    "gradient": Hole({"adjustment": {"mode": "hat", "apply_to": "gradient"}}, "adjustment.apply_to: gradient"),
    "gradient, kept momentum": Hole(
        {"adjustment": {"mode": "hat", "apply_to": "gradient"}}, "adjustment.apply_to: gradient", optimizer="sgd_kept"
    ),
    "no rates": Hole({"adjustment": {"mode": "hat_const_1"}}, "adjustment.mode: hat_const_1"),
    "soft rates": Hole({"adjustment": {"mode": "hat_const_alpha", "alpha": 0.1}}, "adjustment.mode: hat_const_alpha"),
    "norms": Hole({"norms": "share"}, "norms: share", "bn1.running_mean", "resnet18"),
    "norms of a transformer": Hole({"norms": "share"}, "norms: share", "features.0.1.weight", "convnext_tiny", "sgd"),
    "heads": Hole({"heads": {"mode": "shared"}}, "heads.mode: shared", "fc.weight"),
    "rest": Hole({"rest": "share"}, "rest: share", "features.1.0.layer_scale", "convnext_tiny", "sgd"),
}


def two_tasks(history: History, optimizer: str) -> list[str]:
    how = recipe(optimizer)
    history.learn("birds", how)
    history.learn("cars", how)
    return history.changed()


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES)
def test_a_missing_protection_leaks_and_is_named(hole: Hole) -> None:
    history = History(build(hole.model), hole.spec)
    assert two_tasks(history, hole.optimizer) == ["birds"]
    assert any(hole.leak in leak for leak in history.session.plan.leaks)
    assert "Finished tasks can change" in str(history.session.plan)
    if hole.tensor is not None:
        with pytest.raises(LeakError, match=f"{hole.tensor}: changes 'birds', 'cars'"):
            history.session.verify()


def test_without_an_adjusting_callback_nothing_is_protected_and_the_plan_says_so() -> None:
    history = History(build("shufflenet_v2_x0_5"), callbacks=[])
    assert two_tasks(history, "sgd") == ["birds"]
    assert any("callbacks" in leak for leak in history.session.plan.leaks)


def test_the_plan_describes_the_callback_in_force_not_the_spec() -> None:
    soft = fh.GradientAdjustCallback({"mode": "hat_const_alpha", "alpha": 0.5})
    history = History(build("shufflenet_v2_x0_5"), {"adjustment": {"mode": "hat"}}, [soft])
    assert any("adjustment.mode: hat_const_alpha" in leak for leak in history.session.plan.leaks)


# ------------------------------------------------------------------ gates out of place
def gate_missing(hooks: HookSet, norm: nn.Module, gate: Gate) -> None:
    """Install no gates behind norms."""


def gate_before(module: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
    """Forward pre-hook: zero the channels that the norm will then shift away from zero."""
    gated: Tensor = module.__dict__["_misplaced"].gate(args[0])
    return gated


def gate_in_front(hooks: HookSet, norm: nn.Module, gate: Gate) -> None:
    """Put the gate in front of the norm."""
    hooks.attribute(norm, "_misplaced", NormSite(gate))
    hooks.forward_pre(norm, gate_before)


@pytest.mark.parametrize("wrong", [gate_missing, gate_in_front])
def test_a_gate_out_of_place_leaks_and_is_found(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("fgadahat_hooks.gates.install"), "install_norm", wrong)
    history = History(build("resnet18"))
    assert history.session.plan.leaks == ()
    assert two_tasks(history, "sgd") == ["birds"]
    with pytest.raises(LeakError, match=r"(?s)layer1\.0\.conv2\.weight: changes 'birds'.*please report"):
        history.session.verify()


SAFE: dict[str, tuple[str, dict[str, Any]]] = {
    "gates before norms": ("resnet18", {"gates": {"position": "output"}}),
    "frozen norms": ("resnet18", {"norms": "freeze"}),
    "rest per task": ("convnext_tiny", {"rest": "per_task"}),
    "few gates": ("resnet18", {"gates": {"targets": "layer3.**"}}),
}


@pytest.mark.parametrize(("model", "spec"), SAFE.values(), ids=SAFE)
def test_other_choices_keep_every_bit_too(model: str, spec: dict[str, Any]) -> None:
    history = History(build(model), spec)
    assert two_tasks(history, "adamw") == []
    assert history.session.plan.leaks == ()
    history.session.verify()
