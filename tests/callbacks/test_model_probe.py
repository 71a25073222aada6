"""Attribution measures inside a task: what they measure, and that training is the same with and without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, CapabilityError, NonFiniteError
from fgadahat_hooks.importance import AttributionMeasure
from fgadahat_hooks.importance.attribution.gradient_x_activation import GradientXActivationAbs
from tests.support.small_models import Functional, Net, TwoHeads, batch

ATTRIBUTIONS = [n for n in fh.registry.measures.names() if issubclass(fh.registry.measures.get(n), AttributionMeasure)]


def attach(model: nn.Module, target: Any = None, **importance: Any) -> fh.Session:
    importance.setdefault("type", "gradient_x_activation_abs")
    spec = {"importance": importance, "adjustment": {"mode": "fg_adahat"}}
    callbacks: list[fh.Callback] = [fh.ImportanceCallback(importance, 0.01, target)]
    callbacks += [fh.SummationCallback(), fh.GradientAdjustCallback(spec["adjustment"])]
    return fh.attach(model, spec, batch(2)[0].to(next(model.parameters()).dtype), callbacks=callbacks)


def net(dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype)


def data(count: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    x, y = batch(count, seed)
    return x.double(), y


def train(session: fh.Session, task: fh.Task, batches: list[Any], every: int = 1) -> None:
    optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.01)))
    for number, (x, y) in enumerate(task.batches(batches), start=1):
        loss = F.cross_entropy(session.model(x), y) + task.regularization()
        (loss / every).backward()
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()


def recorded_results(session: fh.Session) -> list[dict[str, Tensor]]:
    """Return a list to which the measure's result is appended at each step."""
    callback = next(c for c in session._sequence.callbacks.items if isinstance(c, fh.ImportanceCallback))
    found: list[dict[str, Tensor]] = []
    measure: Any = callback.measure
    compute = measure.compute

    def compute_and_record(batch: Any) -> dict[str, Tensor]:
        found.append(compute(batch))
        return found[-1]

    measure.compute = compute_and_record
    return found


def test_a_step_measures_its_own_batch_with_the_weights_before_it() -> None:
    session = attach(net())
    found = recorded_results(session)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for x, y in task.batches([data(), data(seed=2)]):
            optimizer.zero_grad()
            F.cross_entropy(session.model(x), y).backward()
            expected = session.measure("gradient_x_activation_abs", x, y)
            optimizer.step()
            assert all(torch.equal(found[-1][n], v) for n, v in expected.items())
    assert len(found) == 2
    assert {n: v.shape for n, v in session.importance("a").items()} == {"conv1": (8,), "conv2": (8,), "hidden": (16,)}


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_training_is_the_same_with_and_without_the_measure(name: str) -> None:
    """Weights, norms, the buffer that only training writes and the random stream: all the same bits."""

    def learn(callbacks: bool) -> tuple[dict[str, Tensor], Tensor]:
        model = nn.Sequential(net(), nn.Dropout(0.3))
        spec = {"importance": {"type": name}, "adjustment": {"mode": "fg_adahat", "base_importance": 0.0}}
        session = fh.attach(model, spec, data(2)[0], callbacks=None if callbacks else [])
        torch.manual_seed(3)
        with session.task("a") as task:
            train(session, task, [data(), data(seed=2)] * 2)
        return {n: v.clone() for n, v in model.state_dict().items()}, torch.rand(3)

    (plain, plain_draws), (measured, draws) = learn(False), learn(True)
    assert torch.equal(plain_draws, draws)
    assert plain.keys() == measured.keys()
    assert all(torch.equal(v, measured[n]) for n, v in plain.items())


def test_accumulated_batches_weigh_by_their_samples() -> None:
    session = attach(net())
    (x1, y1), (x2, y2) = data(2), data(6, seed=2)
    callback = session._sequence.callbacks.items[0]
    assert isinstance(callback, fh.ImportanceCallback)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for x, y in ((x1, y1), (x2, y2)):
            task.begin_batch(1, 2, (x, y))
            F.cross_entropy(session.model(x), y).backward()
        whole = session.measure("gradient_x_activation_abs", torch.cat([x1, x2]), torch.cat([y1, y2]))
        raw = callback._probe.raw_importance(task.context(), list(task.context().layers.values()))
        optimizer.step()
    for name, value in whole.items():
        torch.testing.assert_close(raw[name], value, rtol=1e-11, atol=0)


def test_max_samples_cuts_inputs_and_labels() -> None:
    session = attach(net(), max_samples=3)
    found = recorded_results(session)
    x, y = data()
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for _ in task.batches([(x, y)]):
            F.cross_entropy(session.model(x), y).backward()
            expected = session.measure("gradient_x_activation_abs", x[:3], y[:3])
            optimizer.step()
    assert all(torch.equal(found[0][n], v) for n, v in expected.items())


def test_a_target_function_needs_no_labels() -> None:
    def target(output: dict[str, Tensor], data: Any) -> Tensor:
        return output["left"].logsumexp(1) - output["right"].square().mean(1)

    session = attach(TwoHeads().double(), target=target)
    found = recorded_results(session)
    x, _ = data()
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for _ in task.batches([x]):
            expected = session.measure("gradient_x_activation_abs", x, lambda output: target(output, None))
            sum(v.square().mean() for v in session.model(x).values()).backward()
            optimizer.step()
    assert all(torch.equal(found[0][n], v) for n, v in expected.items())


def test_mixed_precision_trains_in_half_and_measures_in_the_parameters_own() -> None:
    session = attach(net(torch.float32))
    found = recorded_results(session)
    x, y = batch(8)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for _ in task.batches([(x, y)]):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = session.model(x)
                loss = F.cross_entropy(output, y)
                expected = session.measure("gradient_x_activation_abs", x, y)
            loss.backward()
            optimizer.step()
    assert output.dtype == torch.bfloat16
    assert all(torch.equal(found[0][n], v) and v.dtype == torch.float32 for n, v in expected.items())


def test_a_scaler_that_skips_the_step_skips_the_measure() -> None:
    session = attach(net(torch.float32))
    found = recorded_results(session)
    x, y = batch(8)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.01)))
        for number, _ in enumerate(task.batches([(x, y)] * 3)):
            optimizer.zero_grad()
            loss = F.cross_entropy(session.model(x), y)
            scaler.scale(loss * float("inf") if number == 1 else loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert len(found) == 2


def test_two_forwards_before_one_backward_count_both() -> None:
    session = attach(net())
    found = recorded_results(session)
    (x1, y1), (x2, y2) = data(2), data(6, seed=2)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.01)))
        for _ in range(2):
            optimizer.zero_grad()
            loss = torch.zeros((), dtype=torch.float64)
            for x, y in ((x1, y1), (x2, y2)):
                task.begin_batch(1, 2, (x, y))
                loss = loss + F.cross_entropy(session.model(x), y)
            loss.backward()
            optimizer.step()
    assert len(found) == 4


def test_two_optimizers_on_one_forward_measure_their_own_layers() -> None:
    session = attach(net(), type="gradient_x_activation_abs")
    model = session.model
    with session.task("a") as task:
        gates = session.parameter_groups(lr=0.01)[1]
        convs = [p for n, p in model.named_parameters() if n.startswith(("conv", "bn")) and "hat_gate" not in n]
        others = [p for n, p in model.named_parameters() if n.startswith(("hidden", "head")) and "hat_gate" not in n]
        first = task.protect(torch.optim.SGD([{"params": convs}, gates], lr=0.01))
        second = task.protect(torch.optim.SGD(others, lr=0.01))
        for x, y in task.batches([data(), data(seed=2)]):
            for optimizer in (first, second):
                optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            first.step()
            second.step()
        masks = {n: g.embedding > 0 for n, g in session._attached.gates.items()}
    for name, value in session.importance("a").items():
        assert float(value[masks[name]].max()) > 0.4, name  # the mean over two steps, not over four


@pytest.mark.parametrize("batches", [[data()[0]], [[data()[0]]]], ids=["a tensor", "a list of one"])
def test_a_batch_without_labels_is_refused(batches: list[Any]) -> None:
    session = attach(net())
    task = session.task("a").__enter__()
    optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
    found = next(task.batches(batches))
    session.model(found if isinstance(found, Tensor) else found[0]).sum().backward()
    with pytest.raises(BadCallError, match="hold the true labels"):
        optimizer.step()


def test_a_model_called_past_its_own_forward_is_refused() -> None:
    session = attach(net())
    x, y = data()
    task = session.task("a").__enter__()
    optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
    task.begin_batch(1, 1, (x, y))
    F.cross_entropy(session.model.forward(x), y).backward()
    with pytest.raises(BadCallError, match="Call the attached model itself"):
        optimizer.step()


def test_an_input_that_is_not_finite_is_named_with_measure_layer_and_step() -> None:
    session = attach(net())
    x, y = data()
    task = session.task("a").__enter__()
    optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
    task.begin_batch(1, 1, (x * float("nan"), y))
    session.model(x * float("nan")).sum().backward()
    with pytest.raises(NonFiniteError, match=r"'gradient_x_activation_abs' gave NaN .*'conv1' in step 1 of task 'a'"):
        optimizer.step()


class Regressor(nn.Module):
    """Returns a map, not class logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.conv(x).relu())
        return found


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Functional(), "needs the outputs of 1 layer that the model uses functionally.*'hidden'"),
        (Regressor(), r"class logits \(batch, classes\), but got \(2, 1, 6, 6\). Give a target"),
        (TwoHeads(), "class logits .*, but got dict"),
    ],
    ids=["functional", "map", "two heads"],
)
def test_what_cannot_be_measured_is_refused_at_attach(model: nn.Module, message: str) -> None:
    before = dict(model.named_modules())
    with pytest.raises(CapabilityError, match=message):
        attach(model)
    assert dict(model.named_modules()) == before


class Tokens(nn.Module):
    """Takes integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(10, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.embedding(x)).relu().mean(1))
        return logits


def test_a_path_of_integers_is_refused_at_attach() -> None:
    x = torch.arange(8).view(2, 4)
    with pytest.raises(CapabilityError, match=r"inputs in floating point.*gradient_x_activation_abs"):
        fh.attach(Tokens(), {"importance": {"type": "conductance_abs"}, "adjustment": {"mode": "fg_adahat"}}, x)
    session = fh.attach(Tokens(), None, x)
    assert session.measure("gradient_x_activation_abs", x, torch.tensor([0, 1]))["hidden"].shape == (5,)


@pytest.mark.parametrize("name", ["gradient_x_activation_abs", "internal_influence_abs"])
def test_a_forward_that_raises_leaves_nothing_behind(name: str) -> None:
    session = attach(net(), type=name)
    model, (x, y) = session.model, data()
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    with pytest.raises(RuntimeError, match=r"shape|size"):
        session.measure(name, x[:, :, :3], y)
    assert model.training
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks
    assert all(p.grad is None for p in model.parameters())


def test_parameters_are_checked_all_at_once() -> None:
    with pytest.raises(BadCallError, match=r"`n_steps` to be a whole number >= 2, but got 0; .*`method` to be one of"):
        fh.registry.measures.get("internal_influence_abs")(n_steps=0, method="simpson")
    with pytest.raises(BadCallError, match="`attribute_to` to be one of 'gate', 'layer', but got 'unit'"):
        GradientXActivationAbs(attribute_to="unit")  # type: ignore[arg-type]
    with pytest.raises(fh.FgadahatError, match=r"importance\.params: expected parameters of 'gradcam_abs'"):
        fh.attach(Net(), {"importance": {"type": "gradcam_abs", "params": {"n_steps": 3}}})
