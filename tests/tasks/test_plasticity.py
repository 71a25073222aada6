"""A task's share of the units, the scale of free rows, and statistics of norms, on small networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import SpecError
from fgadahat_hooks.functional.plasticity import task_share
from tests.reference import plasticity as reference

SHARE: dict[str, Any] = {
    "gates": {"choose": "share", "tasks": 4},
    "regularization": {"factor": 0.0},
    "plasticity": {"rescale": True, "learning_rates": "by_share", "norm_statistics": "measured"},
}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(12 * 36, 16),
        nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3),
    )  # fmt: skip


def data(kind: str, seed: int, batches: int = 4) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    shape = (8, 6) if kind == "mlp" else (8, 1, 8, 8)
    return [(torch.randn(shape, generator=g), torch.randint(0, 3, (8,), generator=g)) for _ in range(batches)]


MODELS = {"mlp": mlp, "cnn": cnn}


def attach(kind: str, spec: dict[str, Any] | None = None) -> fh.Session:
    torch.manual_seed(0)
    return fh.attach(MODELS[kind](), SHARE if spec is None else spec, data(kind, 0)[0][0])


def train(session: fh.Session, task: fh.Task, kind: str, seed: int, optimizer: torch.optim.Optimizer) -> None:
    session.model.train()
    for x, y in task.batches(data(kind, seed)):
        optimizer.zero_grad()
        (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
        optimizer.step()


def learn(session: fh.Session, kind: str, name: str, seed: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    with session.task(name) as task:
        used = optimizer or torch.optim.AdamW(session.parameter_groups(lr=1e-3, weight_decay=0.1))
        task.protect(used)
        train(session, task, kind, seed, used)
    session.model.eval()


def outputs(session: fh.Session, name: str, kind: str) -> Tensor:
    with torch.no_grad(), session.use(name):
        found: Tensor = session.model(data(kind, 99)[0][0])
    return found


# ------------------------------------------------------------------ shares
def test_each_task_gets_its_share_and_reads_what_others_use() -> None:
    session = attach("mlp")
    used = {name: torch.zeros(len(e), dtype=torch.bool) for name, e in session.embeddings.items()}
    for finished, name in enumerate("abcdef"):
        free = {layer: int((~mask).sum()) for layer, mask in used.items()}
        learn(session, "mlp", name, finished)
        for layer, mask in session.masks(name).items():
            assert bool(mask[used[layer]].all())
            share = task_share(len(mask), 4, finished)
            assert int((mask & ~used[layer]).sum()) == min(share, free[layer])
            used[layer] |= mask
    assert all(bool(mask.all()) for mask in used.values())


def test_masks_are_hard_from_the_first_step_and_do_not_move() -> None:
    session = attach("mlp")
    with session.task("a") as task:
        before = {name: e.detach().clone() for name, e in session.embeddings.items()}
        optimizer = task.protect(torch.optim.Adam(session.model.parameters(), lr=2.0, weight_decay=0.1))
        for _ in range(2):  # eight steps of this rate would take every embedding through zero
            train(session, task, "mlp", 0, optimizer)
        assert all(torch.equal(e.detach(), before[n]) for n, e in session.embeddings.items())
        assert all(e.grad is not None for e in session.embeddings.values())  # as DistributedDataParallel expects
    assert all(torch.equal(mask, before[n] > 0) for n, mask in session.masks("a").items())


def test_a_share_needs_the_number_of_tasks() -> None:
    with pytest.raises(SpecError, match=r"gates: expected `tasks`"):
        fh.AttachSpec(gates={"choose": "share"})


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("mode", ["hat", "fg_adahat"])
def test_finished_tasks_keep_their_bits(kind: str, mode: str) -> None:
    session = attach(kind, {**SHARE, "adjustment": {"mode": mode}})
    kept = torch.optim.AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1))
    before = {}
    for seed, name in enumerate("abc"):
        learn(session, kind, name, seed, kept)
        before[name] = outputs(session, name, kind)
    same = [torch.equal(outputs(session, name, kind), value) for name, value in before.items()]
    assert all(same) or mode != "hat"
    if mode == "hat":
        assert session.verify(optimizer=torch.optim.AdamW, steps=3).leaks == {}


# ------------------------------------------------------------------ scale
def test_free_rows_get_their_scale_and_used_rows_keep_their_bits() -> None:
    session = attach("mlp")
    first, second = session.model.get_submodule("0"), session.model.get_submodule("2")
    at_attach = {0: first.get_parameter("weight").detach().clone(), 2: second.get_parameter("weight").detach().clone()}
    learn(session, "mlp", "a", 0)
    before = {0: first.get_parameter("weight").detach().clone(), 2: second.get_parameter("weight").detach().clone()}
    used = session.masks("a")
    with session.task("b"):
        open_units = {i for i, e in enumerate(session.embeddings["0"].tolist()) if e > 0}
        shares = {0: 1.0, 2: reference.open_share([{i} for i in range(20)], [False] * 20, open_units)}
        for layer, weight in ((0, first.get_parameter("weight")), (2, second.get_parameter("weight"))):
            rows = used[str(layer)]
            expected = reference.rescaled_rows(before[layer], at_attach[layer], rows.tolist(), shares[layer])
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)
            assert torch.equal(weight.detach()[rows], before[layer][rows])


def test_weights_loaded_after_attach_set_the_scale_even_after_a_task_was_rolled_back(tmp_path: Path) -> None:
    session = attach("cnn")
    torch.manual_seed(1)
    pretrained = cnn()
    for tensor in pretrained.state_dict().values():
        tensor.mul_(3)
    session.model.load_state_dict(pretrained.state_dict(), strict=False)
    loaded = pretrained[0].get_parameter("weight").flatten(1).norm(dim=1)
    aborted = session.task("a").__enter__()
    train(session, aborted, "cnn", 0, aborted.protect(torch.optim.AdamW(session.parameter_groups(lr=0.1))))
    aborted.__exit__(KeyError, KeyError(), None)
    session.save(tmp_path / "run")
    for one in (session, fh.load(cnn(), tmp_path / "run", data("cnn", 0)[0][0])):
        with one.task("a"):
            torch.testing.assert_close(
                one.model.get_submodule("0").get_parameter("weight").flatten(1).norm(dim=1), loaded
            )
        with one.task("b"):
            assert torch.equal(one.model.get_submodule("1").get_parameter("weight"), 3 * torch.ones(12))


def test_a_fresh_head_gets_the_scale_of_its_open_inputs() -> None:
    torch.manual_seed(0)
    model = mlp()
    before = model[4].get_parameter("weight").detach().clone()
    session = fh.attach(model, SHARE, torch.randn(2, 6))
    with session.task("a"):
        share = float((session.embeddings["2"] > 0).double().mean())
        torch.testing.assert_close(model[4].get_parameter("weight").detach(), before / math.sqrt(share))


# ------------------------------------------------------------------ statistics
def test_statistics_are_those_of_the_last_batches_under_the_hard_mask() -> None:
    session = attach("cnn")
    learn(session, "cnn", "a", 0)
    first = session.model.get_submodule("0")
    with session.use("a"), torch.no_grad():
        raw = torch.cat(
            [F.conv2d(x, first.get_parameter("weight"), first.get_parameter("bias")) for x, _ in data("cnn", 0)]
        )
        norm = session.model.get_submodule("1")
        mean = norm.get_buffer("running_mean").clone()
    torch.testing.assert_close(mean, raw.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_measuring_leaves_modes_momenta_and_random_numbers() -> None:
    session = attach("cnn")
    norm = session.model.get_submodule("1")
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-3)))
        train(session, task, "cnn", 0, optimizer)
        session.model.get_submodule("3").eval()
        modes = [module.training for module in session.model.modules()]
        numbers, counted = torch.get_rng_state(), norm.get_buffer("num_batches_tracked").clone()
    assert [module.training for module in session.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers)
    assert torch.equal(norm.get_buffer("num_batches_tracked"), counted)
    assert norm.momentum == 0.1


# ------------------------------------------------------------------ a restart
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Saved after two of four batches of the second task, and continued in a new session."""
    whole = attach("cnn")
    learn(whole, "cnn", "a", 0)
    torch.manual_seed(5)
    with whole.task("b") as task:
        optimizer = task.protect(torch.optim.AdamW(whole.parameter_groups(lr=1e-3, weight_decay=0.1)))
        train(whole, task, "cnn", 1, optimizer)
    broken = attach("cnn")
    learn(broken, "cnn", "a", 0)
    torch.manual_seed(5)
    task = broken.task("b").__enter__()
    optimizer = task.protect(torch.optim.AdamW(broken.parameter_groups(lr=1e-3, weight_decay=0.1)))
    broken.model.train()
    for number, (x, y) in enumerate(data("cnn", 1)[:2], start=1):
        task.begin_batch(number, 4)
        optimizer.zero_grad()
        (F.cross_entropy(broken.model(x), y) + task.regularization()).backward()
        optimizer.step()
        task.end_batch()
    broken.save(tmp_path / "run", extra={"optimizer": optimizer})
    torch.manual_seed(1)
    resumed = fh.load(cnn(), tmp_path / "run")
    resumed.model.train()
    with resumed.task("b", resume=True) as again:
        again.anneal(1, 1000)  # a soft mask of this scale would not be hard
        assert all(set(gate.soft_mask().tolist()) <= {0.0, 1.0} for gate in resumed._attached.gates.values())
        fresh = again.protect(torch.optim.AdamW(resumed.parameter_groups(lr=1e-3, weight_decay=0.1)))
        resumed.restore(tmp_path / "run", {"optimizer": fresh})
        for x, y in again.batches(data("cnn", 1), start=2):
            fresh.zero_grad()
            (F.cross_entropy(resumed.model(x), y) + again.regularization()).backward()
            fresh.step()
    for session in (whole, resumed):
        session.model.eval()
    assert torch.equal(outputs(whole, "b", "cnn"), outputs(resumed, "b", "cnn"))
    assert torch.equal(outputs(whole, "a", "cnn"), outputs(resumed, "a", "cnn"))
