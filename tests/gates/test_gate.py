from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.errors import NoTaskError
from fgadahat_hooks.gates.gate import Gate, GateContext, GateMode
from fgadahat_hooks.gates.sites import install_fold, install_norm, install_output
from fgadahat_hooks.graph.unit_graph import GATE
from fgadahat_hooks.hooks import HookSet

MASK = torch.tensor([1.0, 0.0, 1.0])


class Host(nn.Module):
    """Calls F.linear with the weight of a layer, instead of the layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        if self.fail:
            raise ValueError("no")
        return F.linear(x, self.layer.weight, self.layer.bias)


def gated(units: int = 3) -> tuple[nn.Linear, Gate, HookSet]:
    """Return a layer with a gate that is not installed yet."""
    layer = nn.Linear(2, units)
    hooks = HookSet()
    gate = Gate("layer", layer.weight, units, -1, GateContext(400.0, 50.0))
    hooks.child(layer, GATE, gate)
    return layer, gate, hooks


def use(gate: Gate, mask: Tensor = MASK) -> None:
    gate.context.masks, gate.context.mode = {"layer": mask}, GateMode.USE


# ------------------------------------------------------------------ which mask applies
def test_the_mask_in_each_mode() -> None:
    _, gate, _ = gated()
    with torch.no_grad():
        gate.embedding.copy_(torch.tensor([0.5, -0.5, 0.0]))
    assert gate.mask() is None
    use(gate)
    assert gate.mask() is MASK
    gate.context.mode = GateMode.TASK
    gate.context.scale = torch.tensor(2.0)
    soft = gate.mask()
    assert soft is not None
    torch.testing.assert_close(soft, torch.sigmoid(2 * gate.embedding), rtol=1e-6, atol=0)
    assert soft.requires_grad
    hard = gate.eval().mask()
    assert hard is not None
    assert hard.tolist() == [1.0, 0.0, 0.0]
    gate.context.mode = GateMode.CLOSED
    with pytest.raises(NoTaskError, match=r"gate of 'layer' outside any task.*session\.use\(task\)"):
        gate.mask()


@pytest.mark.parametrize(
    ("like", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtype_of_an_embedding(like: torch.dtype, expected: torch.dtype) -> None:
    gate = Gate("layer", torch.zeros(2, dtype=like), 2, -1, GateContext(400.0, 50.0))
    use(gate, MASK[:2])
    assert gate.embedding.dtype == expected
    assert gate(torch.ones(4, 2, dtype=like)).dtype == like


# ------------------------------------------------------------------ where it acts
def test_on_the_output_before_the_users_hooks() -> None:
    layer, gate, hooks = gated()
    layer.register_forward_hook(lambda m, args, output: output + 1)
    plain = layer(torch.ones(2, 2))
    install_output(hooks, layer)
    assert torch.equal(layer(torch.ones(2, 2)), plain)
    use(gate)
    assert torch.equal(layer(torch.ones(2, 2)), (plain - 1) * MASK + 1)


def test_on_the_channels_of_a_map() -> None:
    conv = nn.Conv2d(1, 3, 1)
    gate = Gate("layer", conv.weight, 3, -3, GateContext(400.0, 50.0))
    use(gate)
    assert gate(torch.ones(2, 3, 4, 4)).sum((-1, -2)).tolist() == [[16.0, 0.0, 16.0]] * 2
    assert gate(torch.ones(3, 4, 4)).sum((-1, -2)).tolist() == [16.0, 0.0, 16.0]


def test_on_rows_of_parameters_while_a_host_runs() -> None:
    layer, gate, hooks = gated()
    host, x = Host(layer), torch.randn(4, 2)
    plain, keys = host(x), list(layer.state_dict())
    install_fold(hooks, host, [(layer, gate)])
    use(gate)
    assert torch.equal(host(x), plain * MASK)
    assert isinstance(layer.weight, nn.Parameter)
    assert "weight" not in vars(layer)
    assert list(layer.state_dict()) == keys
    host(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[1].tolist() == [0.0, 0.0]
    hooks.close()
    assert torch.equal(host(x), plain)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_parameters_are_restored_after_an_error() -> None:
    layer, gate, hooks = gated()
    host = Host(layer)
    install_fold(hooks, host, [(layer, gate)])
    use(gate)
    host.fail = True
    with pytest.raises(ValueError, match="no"):
        host(torch.randn(1, 2))
    assert "weight" not in vars(layer)
    host.fail = False
    host(torch.randn(1, 2))
    assert "weight" not in vars(layer)


def test_hosts_inside_each_other() -> None:
    layer, gate, hooks = gated()
    outer = nn.Sequential(Host(layer))
    plain = outer(torch.ones(1, 2))
    install_fold(hooks, outer, [(layer, gate)])
    install_fold(hooks, outer[0], [(layer, gate)])
    use(gate, torch.tensor([2.0, 0.0, 1.0]))
    assert torch.equal(outer(torch.ones(1, 2)), plain * torch.tensor([2.0, 0.0, 1.0]))
    assert "weight" not in vars(layer)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5)])
def test_after_a_norm(affine: bool, shape: tuple[int, ...]) -> None:
    _, gate, hooks = gated()
    norm, x = nn.BatchNorm1d(3, affine=affine).eval(), torch.randn(shape)
    plain = norm(x)
    install_norm(hooks, norm, gate)
    assert torch.equal(norm(x), plain)
    use(gate)
    assert torch.equal(norm(x), plain * MASK.view(1, 3, *[1] * (len(shape) - 2)))
    hooks.close()
    assert torch.equal(norm(x), plain)
    assert not norm._forward_hooks


# ------------------------------------------------------------------ copies
def test_a_copy_has_its_own_gates() -> None:
    layer, gate, hooks = gated()
    install_output(hooks, layer)
    install_fold(hooks, host := Host(layer), [(layer, gate)])
    use(gate)
    for other in (copy.deepcopy(host), pickle.loads(pickle.dumps(host))):  # noqa: S301
        assert torch.equal(other(torch.ones(1, 2)), host(torch.ones(1, 2)))
        own = other.layer.get_submodule(GATE)
        assert isinstance(own, Gate)
        assert own is not gate
        own.context.mode = GateMode.OPEN
        assert gate.context.mode is GateMode.USE
        assert not torch.equal(other(torch.ones(1, 2)), host(torch.ones(1, 2)))


def test_the_embedding_is_cast_with_the_model() -> None:
    layer, gate, hooks = gated()
    install_output(hooks, layer)
    layer.double()
    assert gate.embedding.dtype == torch.float64
    assert layer(torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64
