"""The recorded training of two tasks, replayed through the public library: plain model, hooks, optimizer, callbacks.

Everything is compared, except for known departures of the record:

- The sparsity R of a layer with at most 10 free units is 0 in the record; here it is the exact ratio. Rates and
  everything that follows from them are compared with the record in the other layers, and with the loops in all.
- The record computes embedding gradients from `m (1 - m)`, whose rounding error the compensation amplifies where m is
  nearly 1. They are compared where `s e < 8`. The masks that follow agree everywhere, since they are flat there.
- The record computes the last importance of `mlp_mid_afi` from gradients that were adjusted a second time, by AdaHAT's
  rates without a sum, as its own `scaled/` shows. It is compared in that form as well as with `scaled/`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fgadahat_hooks as fh
from fgadahat_hooks.functional import min_max
from tests.reference import rates as reference
from tests.reference import sparsity as reference_sparsity
from tests.reference.recorded import LAYERS, SETS, Recorded, recorded
from tests.support.small import embeddings, mlp

GATED = ("0", "2", "4")
EXACT = 8.0  # largest s e at which the recorded embedding gradient is accurate
FEW = 10  # number of free units up to which the record has sparsity 0


class Probe(fh.Callback):
    """Keeps the summed importance that protects the next task."""

    priority = 60

    def on_task_end(self, context: fh.TaskContext) -> None:
        assert context.summed_importance is not None
        self.summed = dict(context.summed_importance)


@dataclass
class Replay:
    """A model of the recorded shape under the recorded settings."""

    data: Recorded
    session: fh.Session
    importance: fh.ImportanceCallback
    adjust: fh.GradientAdjustCallback
    probe: Probe

    @property
    def layers(self) -> list[nn.Linear]:
        return [self.session.model.get_submodule(name) for name in GATED]  # type: ignore[misc]

    @property
    def head(self) -> nn.Linear:
        return self.session.model.get_submodule("6")  # type: ignore[return-value]

    def tensors(self, task: int) -> dict[str, Tensor]:
        """Return the live tensors by their recorded names."""
        found: dict[str, Tensor] = {f"headW{task}": self.head.weight, f"headb{task}": self.head.bias}
        for i, (layer, e) in enumerate(zip(self.layers, embeddings(self.session), strict=True)):
            found |= {f"W{i}": layer.weight, f"b{i}": layer.bias, f"e{i}": e}
        return found

    def load(self, key: str, task: int) -> None:
        """Set all parameters to recorded ones."""
        with torch.no_grad():
            for name, tensor in self.tensors(task).items():
                tensor.copy_(self.data.tensor(f"{key}/{name}"))

    def compare(self, key: str, task: int, scale: float, before: str, skip: tuple[int, ...] = ()) -> None:
        """Compare all parameters with recorded ones; layers to skip lack only weights and biases."""
        for name, tensor in self.tensors(task).items():
            expected = self.data.tensor(f"{key}/{name}")
            if name.startswith("e"):
                exact = scale * self.data.tensor(f"{before}/{name}") < EXACT
                assert exact.any()
                same(tensor[exact], expected[exact])
            elif not (name[0] in "Wb" and int(name[-1]) in skip):
                same(tensor, expected)

    def optimizer(self, task: fh.Task) -> torch.optim.Optimizer:
        """Return the recorded optimizer: one learning rate for all parameters."""
        lr = self.data.settings["lr"]
        return task.protect(torch.optim.SGD(self.session.parameter_groups(lr=lr, gate_lr=lr)))

    def losses(self, task: fh.Task, x: Tensor, y: Tensor, key: str) -> Tensor:
        """Compare the parts of the loss and return their sum."""
        entropy, regularizer = cross_entropy(self.session.model(x), y), task.regularization()
        same(entropy, self.data.tensor(f"{key}/loss_cls"))
        same(regularizer, self.data.tensor(f"{key}/reg"))
        same(entropy + regularizer, self.data.tensor(f"{key}/loss"))
        return entropy + regularizer


def same(ours: Tensor | None, expected: Tensor) -> None:
    """Compare to 1e-12."""
    assert ours is not None
    torch.testing.assert_close(ours.detach(), expected, rtol=1e-12, atol=1e-16)


def attach(data: Recorded) -> Replay:
    """Attach a plain model with the recorded settings; as in the record, measures read adjusted gradients."""
    s = data.settings
    importance = fh.ImportanceCallback(
        {
            "type": s["importance_type_used_in_training"],
            "gradient": "adjusted",
            "filter_unmasked": s["filter_unmasked_importance"],
            "multiply_training_mask": s["step_multiply_training_mask"],
        },
        s["base_importance"],
    )
    adjust = fh.GradientAdjustCallback(
        {
            "mode": "fg_adahat",
            "apply_to": "gradient",
            "intensity": s["adjustment_intensity"],
            "base_linear": s["base_linear"],
            "base_mask_sparsity_reg": s["base_mask_sparsity_reg"],
        }
    )
    gates = {"targets": list(GATED), "position": "output"}
    spec = {
        "gates": {**gates, "s_max": s["s_max"], "clamp_threshold": s["clamp_threshold"]},
        "regularization": {"factor": s["mask_sparsity_reg_factor"]},
    }
    probe = Probe()
    summation = fh.SummationCallback({"strategy": s["summing"]})
    model = mlp(*s["dims"], s["num_classes"])
    session = fh.attach(model, spec, data.tensor("t2_x"), callbacks=[adjust, probe, summation, importance])
    return Replay(data, session, importance, adjust, probe)


def first_task(r: Replay) -> None:
    """Replay the three steps of task 1. The record's batch index, counted from 1, gives the record's scale."""
    data, s = r.data, r.data.settings
    with r.session.task(1) as task:
        r.load("t1_init", 1)
        optimizer = r.optimizer(task)
        for step, batch in enumerate(s["t1_batch_idx"]):
            task.begin_batch(batch, s["num_batches"])
            optimizer.zero_grad()
            r.losses(task, data.tensor("t1_x")[step], data.tensor("t1_y")[step], f"t1_step{step}").backward()
            assert r.session.capacity() == data.tensor(f"t1_step{step}/capacity").item() == 1
            optimizer.step()
            total = r.session.graph.split(r.importance.state_dict()["total"])
            for i, part in zip(LAYERS, total.values(), strict=True):
                same(part, data.tensor(f"t1_step{step}/accumulated_importance{i}"))
        r.compare("t1_end", 1, task.anneal(batch, s["num_batches"]), "t1_init")


def compare_end(r: Replay, task: int) -> None:
    """Compare the masks of a task, and the cumulative and summative masks after it."""
    session, key = r.session, f"t{task}_end"
    for i, name in enumerate(GATED):
        assert torch.equal(session.masks(task)[name].double(), r.data.tensor(f"{key}/mask{i}"))
        assert torch.equal(session.cumulative_mask[name].double(), r.data.tensor(f"{key}/cumulative_mask{i}"))
        assert torch.equal(session.summative_mask[name].double(), r.data.tensor(f"{key}/summative_mask{i}"))


def compare_importance(r: Replay, task: int) -> None:
    """Compare a task's importance and the summed importance after it."""
    for i, name in enumerate(GATED):
        same(r.session.importance(task)[name], r.data.tensor(f"t{task}_end/importance{i}"))
        same(r.probe.summed[name], r.data.tensor(f"t{task}_end/summative_importance{i}"))


def looped_rates(data: Recorded, i: int) -> tuple[Tensor, Tensor]:
    """Return the rates of layer i in task 2 with the exact sparsity."""
    mask, free = data.tensor(f"t2/mask{i}").tolist(), data.tensor(f"t1_end/cumulative_mask{i}").tolist()
    sparsity = reference_sparsity.layer_sparsity(mask, free)
    s = reference.Settings("fg_adahat", data.settings["adjustment_intensity"], 2, sparsity)
    keys = ("summative_importance", "cumulative_mask", "summative_mask")
    own, below = (
        reference.Units(*(data.tensor(f"t1_end/{key}{k}").tolist() for key in keys)) for k in (i, max(i - 1, 0))
    )
    weight = reference.weight_rates(s, own, below if i else None, data.settings["dims"][i])
    return torch.tensor(weight, dtype=torch.float64), torch.tensor(reference.bias_rates(s, own), dtype=torch.float64)


def second_task(r: Replay, departing: tuple[int, ...]) -> None:
    """Replay the one step of task 2; `departing` layers have another sparsity in the record."""
    data, s = r.data, r.data.settings
    with r.session.task(2) as task:
        r.load("t2_before", 2)
        optimizer = r.optimizer(task)
        task.begin_batch(s["t2_batch_idx"], s["num_batches"])
        optimizer.zero_grad()
        r.losses(task, data.tensor("t2_x"), data.tensor("t2_y"), "t2").backward()
        expected = [looped_rates(data, i) for i in LAYERS]
        capacity = torch.cat([part.flatten() for pair in expected for part in pair]).mean().item()
        assert r.session.capacity() == pytest.approx(capacity, rel=1e-12)
        for i, layer in enumerate(r.layers):
            same(layer.weight.grad, data.tensor(f"t2/gradW{i}_raw"))
            same(layer.bias.grad, data.tensor(f"t2/gradb{i}_raw"))
        optimizer.step()
        for i, layer in enumerate(r.layers):
            compare_step(data, i, layer, expected[i], departs=i in departing)
        same(r.head.weight.grad, data.tensor("t2/head_gradW"))
        r.compare("t2_after", 2, s["anneal_scalar_upstream"], "t2_before", departing)


def compare_step(data: Recorded, i: int, layer: nn.Linear, rates: tuple[Tensor, Tensor], *, departs: bool) -> None:
    """Compare adjusted gradients and updated weights of a layer with the loops and, unless it departs, the record."""
    for part, parameter, rate in zip("Wb", (layer.weight, layer.bias), rates, strict=True):
        adjusted = rate * data.tensor(f"t2/grad{part}{i}_raw")
        same(parameter.grad, adjusted)
        same(parameter, data.tensor(f"t2_before/{part}{i}") - data.settings["lr"] * adjusted)
        if not departs:
            same(rate, data.tensor(f"t2/rate{part}{i}"))
            same(parameter.grad, data.tensor(f"t2/grad{part}{i}_adjusted"))


@pytest.mark.parametrize("name", SETS)
def test_both_recorded_tasks(name: str) -> None:
    data = recorded(name)
    r = attach(data)
    first_task(r)
    compare_end(r, 1)
    compare_importance(r, 1)
    departing = tuple(i for i in LAYERS if (data.tensor(f"t1_end/cumulative_mask{i}") == 0).sum() <= FEW)
    second_task(r, departing)
    compare_end(r, 2)
    if name != "mlp_mid_afi":
        compare_importance(r, 2)
    else:
        compare_twice_adjusted(r, departing)


def compare_twice_adjusted(r: Replay, departing: tuple[int, ...]) -> None:
    """Compare the last importance with `scaled/`, and that of twice adjusted gradients with the recorded end."""
    data, base = r.data, r.data.settings["base_importance"]
    kind = data.settings["importance_type_used_in_training"]
    for i, name in enumerate(GATED):
        mask, activation = data.tensor(f"t2_end/mask{i}"), data.tensor(f"t2/activation{i}").abs().mean(0)
        twice = data.tensor(f"t2/gradW{i}_adjusted") * data.tensor(f"rates/adahat:adahat_no_sum/W{i}")
        scaled = min_max(twice.square().sum(1) * activation) * data.tensor(f"t2/mask{i}")
        torch.testing.assert_close((scaled + base) * mask, data.tensor(f"t2_end/importance{i}"), rtol=1e-12, atol=0)
        if i not in departing:
            expected = (data.tensor(f"scaled/{kind}/{i}") + base) * mask
            torch.testing.assert_close(r.session.importance(2)[name], expected, rtol=1e-11, atol=0)


def test_layers_with_many_and_with_few_free_units_are_compared() -> None:
    """The records together have layers of both kinds."""
    free = [int((recorded(name).tensor(f"t1_end/cumulative_mask{i}") == 0).sum()) for name in SETS for i in LAYERS]
    assert sum(count > FEW for count in free) == 4
    assert sum(count <= FEW for count in free) == 5
