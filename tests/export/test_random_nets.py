"""Both exports of networks with random wiring and random masks compute what the task computes."""

from __future__ import annotations

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.graph.gateable import gateable_layers
from tests.export.random_nets import SHAPE, RandomNet
from tests.support.exporting import finish
from tests.support.learning import logits

NOTHING_REMOVED = {4, 6}
"""Seeds of networks from which nothing can be removed."""


def attached(seed: int) -> fh.Session:
    """Attach with gates on the layers that the forward runs."""
    torch.manual_seed(seed)
    model = RandomNet(seed)
    reached: set[str] = set()
    handles = [m.register_forward_hook(lambda *_, n=n: reached.add(n)) for n, m in model.named_modules()]
    with torch.no_grad():
        model.eval()(torch.randn(1, *SHAPE))
    for handle in handles:
        handle.remove()
    targets = [name for name in gateable_layers(model) if name in reached]
    return fh.attach(model, {"gates": {"targets": targets}}, torch.randn(2, *SHAPE))


@pytest.mark.parametrize("seed", range(12))
def test_both_exports_compute_what_the_task_computes(seed: int) -> None:
    session = attached(seed)
    finish(session, "a", seed, share=0.35)
    x = torch.randn(5, *SHAPE)
    used = logits(session, "a", x)
    small, report = session.export("a", compact=True, report=True)
    with torch.no_grad():
        assert torch.equal(session.export("a")(x), used)
        assert (small(x) - used).abs().max() <= 1e-5 * used.abs().max()
    assert bool(report.removed) is (seed not in NOTHING_REMOVED)
    failed = [why for reasons in report.kept.values() for why in reasons if why.startswith("without it")]
    assert failed == []  # the selection is right by itself, before outputs are compared
