"""Statistics of norms, measured anew when a task ends: what they are of, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LearningWarning
from fgadahat_hooks.tasks.lifecycle import MEASURED_FORWARDS

LEARNT: dict[str, Any] = {}


class Net(nn.Module):
    """A norm behind a linear layer, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.5)
        self.head = nn.Linear(12, 3)
        self.fails = False

    def forward(self, x: Tensor, shift: float = 0.0) -> Tensor:
        if self.fails:
            raise RuntimeError("only once")
        out: Tensor = self.head(self.drop(F.relu(self.norm(self.first(x + shift)))))
        return out


def data(count: int) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 6, generator=g), torch.arange(8) % 3) for _ in range(count)]


def learn(
    batches: list[tuple[Tensor, Tensor]],
    spec: Any = None,
    each: Callable[[fh.Session, Tensor], Tensor] = lambda session, x: session.model(x),
    end: Callable[[Net], object] = lambda net: None,
    context: Callable[[], Any] = nullcontext,
) -> tuple[fh.Session, Net]:
    torch.manual_seed(0)
    net = Net()
    session = fh.attach(net, LEARNT if spec is None else spec, data(1)[0][0])
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2, gate_lr=0.3)))
        net.train()
        for x, y in task.batches(batches):
            optimizer.zero_grad()
            with context():
                loss = F.cross_entropy(each(session, x), y)
            (loss + task.regularization()).backward()
            optimizer.step()
        end(net)
    return session, net


def expected(net: Net, batches: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean over the batches of each batch's mean and unbiased variance."""
    with torch.no_grad():
        hidden = [F.linear(x, net.first.weight, net.first.bias) for x in batches]
    return torch.stack([h.mean(0) for h in hidden]).mean(0), torch.stack([h.var(0) for h in hidden]).mean(0)


def check(net: Net, batches: list[Tensor], tolerance: float = 1e-5) -> None:
    mean, variance = expected(net, batches)
    torch.testing.assert_close(net.norm.get_buffer("running_mean"), mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(net.norm.get_buffer("running_var"), variance, rtol=tolerance, atol=tolerance)


def test_a_bare_spec_measures_them_too() -> None:
    batches = data(5)
    _, net = learn(batches)
    check(net, [x for x, _ in batches])


def test_they_are_of_the_last_batches() -> None:
    batches = data(MEASURED_FORWARDS + 3)
    _, net = learn(batches)
    check(net, [x for x, _ in batches[3:]])


def test_inputs_that_are_overwritten_are_measured_as_they_were() -> None:
    batches = data(5)
    originals = [x.clone() for x, _ in batches]
    buffer = torch.zeros(8, 6)

    def each(session: fh.Session, x: Tensor) -> Tensor:
        buffer.copy_(x)
        return session.model(buffer)  # type: ignore[no-any-return]

    _, net = learn(batches, each=each)
    check(net, originals)


def test_keyword_arguments_are_passed_again() -> None:
    batches = data(5)
    _, net = learn(batches, each=lambda session, x: session.model(x=x, shift=0.5))
    check(net, [x + 0.5 for x, _ in batches])


def test_autocast_is_on_again() -> None:
    seen: list[torch.dtype] = []

    def end(net: Net) -> None:
        net.first.register_forward_hook(lambda module, args, output: seen.append(output.dtype))

    learn(data(3), end=end, context=lambda: torch.autocast("cpu", torch.bfloat16))
    assert seen[:3] == [torch.bfloat16] * 3


def test_norms_in_evaluation_mode_keep_their_statistics() -> None:
    def each(session: fh.Session, x: Tensor) -> Tensor:
        session.model.get_submodule("norm").eval()
        return session.model(x)  # type: ignore[no-any-return]

    _, net = learn(data(4), each=each)
    assert torch.equal(net.norm.get_buffer("running_mean"), torch.zeros(12))


def test_evaluation_before_the_end_changes_nothing() -> None:
    batches = data(4)

    def end(net: Net) -> None:
        net.eval()
        net(data(1)[0][0])

    _, net = learn(batches, end=end)
    check(net, [x for x, _ in batches])
    assert not net.norm.training


def test_statistics_stay_as_they_are_if_asked_for() -> None:
    after: list[Tensor] = []
    _, net = learn(
        data(4),
        {"plasticity": {"norm_statistics": "running"}},
        end=lambda net: after.append(net.norm.get_buffer("running_mean").clone()),
    )
    assert torch.equal(net.norm.get_buffer("running_mean"), after[0])


def test_a_model_that_cannot_run_again_keeps_its_task_and_statistics() -> None:
    after: list[Tensor] = []

    def end(net: Net) -> None:
        after.append(net.norm.get_buffer("running_mean").clone())
        net.fails = True

    with pytest.warns(LearningWarning, match=r"statistics of its norms stay as training left them: .* RuntimeError"):
        session, net = learn(data(4), end=end)
    assert session.tasks == ("a",)
    assert torch.equal(net.norm.get_buffer("running_mean"), after[0])
    assert net.norm.momentum == 0.1
    assert net.norm.training


def test_a_loop_that_calls_parts_of_the_model_is_told() -> None:
    def each(session: fh.Session, x: Tensor) -> Tensor:
        net = session.model
        assert isinstance(net, Net)
        return net.head(F.relu(net.norm(net.first(x))))  # type: ignore[no-any-return]

    with pytest.warns(
        LearningWarning, match="no training forward of the attached model was seen; call the model itself"
    ):
        learn(data(3), each=each)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own modules
def test_a_compiled_model_measures_its_last_batches() -> None:
    torch.compiler.reset()
    batches = data(5)
    compiled: list[Any] = []

    def each(session: fh.Session, x: Tensor) -> Tensor:
        if not compiled:
            compiled.append(torch.compile(session.model, backend="eager"))
        return compiled[0](x)  # type: ignore[no-any-return]

    _, net = learn(batches, each=each)
    torch.compiler.reset()
    check(net, [x for x, _ in batches])


def test_random_numbers_and_other_buffers_stay() -> None:
    numbers: list[Tensor] = []
    learn(data(3), end=lambda net: numbers.append(torch.get_rng_state()))
    assert torch.equal(torch.get_rng_state(), numbers[0])


class TwoNorms(nn.Module):
    """A norm for each kind of input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norms = nn.Linear(6, 12), nn.ModuleList([nn.BatchNorm1d(12), nn.BatchNorm1d(12)])
        self.head = nn.Linear(12, 3)
        self.calls: Tensor
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor, kind: int = 0) -> Tensor:
        self.calls = self.calls + 1
        out: Tensor = self.head(F.relu(self.norms[kind](self.first(x))))
        return out


def test_what_the_last_forwards_do_not_reach_and_what_they_assign_stays() -> None:
    torch.manual_seed(0)
    net = TwoNorms()
    session = fh.attach(net, {}, data(1)[0][0])
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2)))
        for number, (x, y) in enumerate(task.batches(data(MEASURED_FORWARDS + 8))):
            optimizer.zero_grad()
            F.cross_entropy(net(x + 5, 0) if number < 8 else net(x, 1), y).backward()
            optimizer.step()
        first = net.norms[0].get_buffer("running_mean").clone()
        second = net.norms[1].get_buffer("running_mean").clone()
        calls = int(net.calls)
    assert torch.equal(net.norms[0].get_buffer("running_mean"), first)
    assert not torch.equal(net.norms[1].get_buffer("running_mean"), second)
    assert int(net.calls) == calls
