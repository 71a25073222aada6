"""The rate of each mode."""

from __future__ import annotations

from typing import get_args

import torch

import fgadahat_hooks as fh
from fgadahat_hooks.callbacks.rates import CONSTANT, RATES
from fgadahat_hooks.spec.attach_spec import HAT, AdaHAT, FGAdaHAT, HATConstAlpha, HATRandom
from tests.support.small import batches, learn, mlp


def test_every_mode_of_the_spec_has_its_rate() -> None:
    blocks = (FGAdaHAT, AdaHAT, HAT, HATRandom, HATConstAlpha)
    modes = {mode for block in blocks for mode in get_args(block.model_fields["mode"].annotation)}
    assert set(RATES) == modes
    assert modes > CONSTANT


def test_rates_have_the_shape_of_their_parameters() -> None:
    adjust = fh.GradientAdjustCallback({"mode": "adahat", "intensity": 0.1})
    session = fh.attach(mlp(4, 5, 3, 2), {}, torch.randn(2, 4, dtype=torch.float64), [adjust])
    learn(session, "a", batches(4, 2))
    with session.task("b") as task:
        rates = adjust.rates(task.context())
        assert {n: r.shape for n, r in rates.items()} == {
            n: session.model.get_parameter(n).shape for n in ("0.weight", "0.bias", "2.weight", "2.bias")
        }
        assert all(((r > 0) & (r <= 1)).all() for r in rates.values())
