from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import TraceError
from fgadahat_hooks.graph.tracing.forward import (
    call_model,
    copy_inputs,
    describe,
    isolated_evaluation,
    output_tensors,
    run_example,
)


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor | float = 1.0) -> Tensor:
        return x + y


X = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("inputs", "expected", "words"),
    [
        (X, [2.0, 3.0], "a tensor of shape (2,)"),
        ((X,), [2.0, 3.0], "a tuple of 1"),
        ((X, X), [2.0, 4.0], "a tuple of 2"),
        ([X, 3.0], [4.0, 5.0], "a list of 2"),
        ({"x": X, "y": X}, [2.0, 4.0], "a dict with keys x, y"),
        (OrderedDict(x=X), [2.0, 3.0], "a dict with keys x"),
        (lambda model: model(X, y=0.0), [1.0, 2.0], "a function"),
    ],
)
def test_kinds_of_example_inputs(inputs: Any, expected: list[float], words: str) -> None:
    assert call_model(Add(), inputs).tolist() == expected
    assert call_model(Add(), copy_inputs(inputs)).tolist() == expected
    assert describe(inputs) == words


def test_example_inputs_are_copied() -> None:
    nested = {"x": X, "more": [X, 3]}
    copied: Any = copy_inputs(nested)
    copied["more"][0].zero_()
    assert X.tolist() == [1.0, 2.0]
    assert copied["more"][1] == 3


def test_an_error_of_the_forward_describes_the_inputs() -> None:
    with pytest.raises(
        TraceError, match=r"The forward of Add raised TypeError .*a tuple of 3.*Pass example_inputs"
    ) as e:
        run_example(Add(), (X, X, X))
    assert isinstance(e.value.__cause__, TypeError)


# ------------------------------------------------------------------ outputs
class Pair(NamedTuple):
    a: Tensor
    b: Tensor


@dataclass
class Result:
    logits: Tensor
    more: dict[str, Tensor] = field(default_factory=dict)
    owner: Any = None


def test_tensors_are_found_in_any_output() -> None:
    a, b, c = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    result = Result(a, {"b": b})
    result.owner = [result, nn.Linear(2, 2), None, "text", 3]
    for output in (result, (a, [b, c.long()]), {"a": a, "b": (b,)}, Pair(a, b)):
        assert [len(t) for t in output_tensors(output)] == [1, 2]
    assert output_tensors(None) == output_tensors(torch.zeros(2).long()) == []


# ------------------------------------------------------------------ restoring everything
class Messy(nn.Module):
    """Changes everything that a forward can change."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm1d(2), nn.BatchNorm1d(2).eval()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("late", None)
        self.plain = torch.zeros(2)
        self.cache: Tensor | None = None
        self.merged = False

    def train(self, mode: bool = True) -> Messy:
        self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        self.norm.train()(x)
        self.count += 1
        self.replaced = x[0]
        self.late = x[0]
        self.plain[0] = 7.0
        self.cache = self.new = x
        random.random()  # noqa: S311
        if fail:
            raise ValueError("no")
        return torch.rand(2) + x


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fast_path", [False, True])
def test_nothing_changes(fail: bool, training: bool, fast_path: bool) -> None:
    model = Messy()
    model.training, model.merged = training, not training
    model.norm.training, model.frozen.training = True, False
    before = {name: t.clone() for name, t in model.state_dict().items()}
    identities = {name: id(t) for name, t in model.named_buffers()}
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    states = (torch.get_rng_state(), random.getstate())
    try:
        with isolated_evaluation(model):
            assert not torch.is_grad_enabled()
            assert not model.training
            assert not torch.backends.mha.get_fastpath_enabled()
            call_model(model, (torch.randn(3, 2), fail))
    except ValueError:
        assert fail
    assert torch.backends.mha.get_fastpath_enabled() is fast_path
    torch.backends.mha.set_fastpath_enabled(enabled)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (model.training, model.norm.training, model.frozen.training) == (training, True, False)
    assert model.merged is not training
    assert {name: id(t) for name, t in model.named_buffers()} == identities
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name])
    assert model.plain.tolist() == [0.0, 0.0]
    assert [model.cache, model.late] == [None, None]
    assert "new" not in vars(model)
    assert torch.is_grad_enabled()


def test_it_works_inside_inference_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.inference_mode(), isolated_evaluation(model):
        assert not torch.is_inference_mode_enabled()
        model(torch.randn(2, 2))
