"""The metrics of an accuracy matrix as torchmetrics classes: counts, values and behaviour."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from fgadahat_hooks import metrics as fm
from fgadahat_hooks.metrics import functional

TASKS = ("birds", 7, ("cars", "small"))
JOINT = torch.tensor([[0.9, 0.8, 0.7], [0.8, 0.9, 0.7], [0.7, 0.8, 0.95]], dtype=torch.float64)
ONE_RUN = [0.9, 0.8, 0.95]


class Case(NamedTuple):
    """A metric class, its reference accuracies, and the function that it must equal."""

    make: type[fm.MatrixMetric]
    references: dict[str, Any]
    function: Callable[..., Tensor]


CASES = [
    Case(fm.AccuracyMatrix, {}, lambda matrix: matrix),
    Case(fm.AverageAccuracy, {}, functional.average_accuracy),
    Case(fm.AverageIncrementalAccuracy, {}, functional.average_incremental_accuracy),
    Case(fm.LearningAccuracy, {}, functional.learning_accuracy),
    Case(fm.BackwardTransfer, {}, functional.backward_transfer),
    Case(fm.ForwardTransferGEM, {"untrained": 0.1}, functional.forward_transfer_gem),
    Case(fm.ForwardTransfer, {"independent": ONE_RUN}, functional.forward_transfer),
    Case(fm.Forgetting, {}, functional.forgetting),
    Case(fm.Intransigence, {"joint": ONE_RUN}, functional.intransigence),
    Case(fm.Intransigence, {"joint": ONE_RUN, "reduction": "none"}, functional.intransigence),
    Case(fm.ForgettingRatio, {"joint": JOINT, "random": 0.1}, functional.forgetting_ratio),
    Case(fm.ForgettingRatio, {"joint": ONE_RUN, "random": 0.1}, functional.forgetting_ratio),
    Case(
        fm.ForgettingRatioIndependent,
        {"independent": ONE_RUN, "random": torch.full((3,), 0.1)},
        functional.forgetting_ratio_independent,
    ),
]
every_metric = pytest.mark.parametrize("case", CASES, ids=[f"{c.make.__name__}-{len(c.references)}" for c in CASES])


class Batch(NamedTuple):
    """Arguments of `update`."""

    preds: Tensor
    target: Tensor
    learnt: Hashable
    task: Any

    def feed(self, metric: Any) -> Any:
        return metric.update(self.preds, self.target, learnt=self.learnt, task=self.task)


def batches(generator: torch.Generator, upper: bool = False) -> list[Batch]:
    """Draw batches of uneven sizes on all tasks so far after each task; with `upper`, on later tasks too."""
    found = []
    for i, learnt in enumerate(TASKS):
        for task in TASKS if upper else TASKS[: i + 1]:
            for size in (5, 3, 8):
                target = torch.randint(0, 3, (size,), generator=generator)
                found.append(Batch(torch.randint(0, 3, (size,), generator=generator), target, learnt, task))
    return found


def counted(data: list[Batch]) -> Tensor:
    """Return the matrix, counted sample by sample."""
    right = torch.zeros(3, 3, dtype=torch.float64)
    seen = torch.zeros(3, 3, dtype=torch.float64)
    for batch in data:
        ids = batch.task if isinstance(batch.task, list) else [batch.task] * len(batch.target)
        for pred, label, task in zip(batch.preds.tolist(), batch.target.tolist(), ids, strict=True):
            place = TASKS.index(batch.learnt), TASKS.index(task)
            right[place] += pred == label
            seen[place] += 1
    return right / seen


def fed(case: Case, data: list[Batch], **options: Any) -> fm.MatrixMetric:
    metric = case.make(TASKS, **case.references, **options).set_dtype(torch.float64)
    for batch in data:
        batch.feed(metric)
    assert isinstance(metric, fm.MatrixMetric)
    return metric


def equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@every_metric
@pytest.mark.parametrize("upper", [False, True])
def test_value(case: Case, upper: bool, generator: torch.Generator) -> None:
    data = batches(generator, upper)
    equal(fed(case, data).compute(), case.function(counted(data), **case.references))


@every_metric
def test_value_before_all_tasks_are_learnt(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)[:9]
    assert TASKS[2] not in {batch.learnt for batch in data}
    equal(fed(case, data).compute(), case.function(counted(data), **case.references))


@every_metric
def test_order_of_the_batches_does_not_matter(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)
    equal(fed(case, data[::-1]).compute(), fed(case, data).compute())


@pytest.mark.parametrize("ids", [list, tuple])
def test_a_batch_of_several_tasks(ids: type, generator: torch.Generator) -> None:
    data = batches(generator)[:9]
    mixed = Batch(
        torch.cat([b.preds for b in data[3:]]),
        torch.cat([b.target for b in data[3:]]),
        TASKS[1],
        ids([b.task for b in data[3:] for _ in b.target]),
    )
    equal(fed(CASES[0], [*data[:3], mixed]).compute(), counted(data))


def test_task_numbers_in_tensors() -> None:
    metric = fm.AccuracyMatrix(2)
    labels = torch.tensor([0, 1, 1])
    metric.update(labels, labels, learnt=torch.tensor(1), task=torch.tensor([0, 1, 1]))
    metric.update(labels, labels, learnt=0, task=torch.tensor(0))
    assert metric.seen.tolist() == [[3, 0], [1, 2]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.half, torch.bfloat16])
def test_scores_count_by_their_largest(dtype: torch.dtype, generator: torch.Generator) -> None:
    scores = torch.randn(20, 4, generator=generator).to(dtype)
    target = torch.randint(0, 4, (20,), generator=generator)
    metric = fm.AverageAccuracy(1)
    metric.update(scores, target, learnt=0, task=0)
    assert metric.compute().item() == pytest.approx((scores.argmax(1) == target).float().mean().item())


def test_an_empty_batch_counts_nothing() -> None:
    metric = fm.AverageAccuracy(1)
    metric.update(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), learnt=0, task=0)
    assert metric.compute().isnan()


def test_counts_of_a_large_test_set_in_half_precision() -> None:
    metric = fm.AverageAccuracy(1).set_dtype(torch.half)
    labels = torch.zeros(100_000, dtype=torch.long)
    metric.update(labels, labels, learnt=0, task=0)
    assert metric.compute().dtype == torch.half
    assert metric.compute().item() == 1.0


# ---------------------------------------------------------------- as torchmetrics' users expect
@every_metric
def test_forward_gives_the_value_of_the_batch_and_counts_it(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)
    metric = case.make(TASKS, **case.references).set_dtype(torch.float64)
    for batch in data:
        of_batch = metric(batch.preds, batch.target, learnt=batch.learnt, task=batch.task)
        expected = case.function(counted([batch]), **case.references)
        equal(of_batch, expected.squeeze() if expected.numel() == 1 else expected)  # as torchmetrics does
    equal(metric.compute(), fed(case, data).compute())


@every_metric
def test_pickle_clone_and_deepcopy_go_on_alone(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)
    metric = fed(case, data[:9])
    before = metric.compute()
    for other in (pickle.loads(pickle.dumps(metric)), metric.clone(), copy.deepcopy(metric)):  # noqa: S301 - our own
        for batch in data[9:]:
            batch.feed(other)
        equal(other.compute(), fed(case, data).compute())
        equal(metric.compute(), before)


@every_metric
def test_reset_forgets_everything(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)
    metric = fed(case, data[9:])
    metric.reset()
    for batch in data[:9]:
        batch.feed(metric)
    equal(metric.compute(), fed(case, data[:9]).compute())


@every_metric
def test_casting_a_module_around_it_keeps_the_references(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)
    metric = fed(case, data)
    nn.ModuleList([metric]).half()
    equal(metric.set_dtype(torch.float64).compute(), fed(case, data).compute())
    assert metric.to("cpu", torch.float32).compute().dtype == torch.float32
    assert metric.correct.dtype == metric.seen.dtype == torch.long


@every_metric
def test_two_halves_merge(case: Case, generator: torch.Generator) -> None:
    data = batches(generator)
    metric = fed(case, data[:10])
    metric.merge_state(fed(case, data[10:]))
    equal(metric.compute(), fed(case, data).compute())


@every_metric
def test_a_state_dict_carries_the_counts_when_asked(case: Case, generator: torch.Generator) -> None:
    metric = fed(case, batches(generator))
    assert metric.state_dict() == {}
    metric.persistent(True)
    other = fed(case, [])
    other.load_state_dict(metric.state_dict())
    equal(other.of_matrix(other.correct.double() / other.seen), metric.compute())


def test_counts_go_where_the_metric_goes() -> None:
    metric = fm.AverageAccuracy(2).to("meta")
    assert metric.correct.device.type == metric.seen.device.type == "meta"
    assert metric.to("meta", torch.half).seen.dtype == torch.long


def test_states_made_in_inference_mode_can_be_added_to_outside(generator: torch.Generator) -> None:
    data = batches(generator)
    metric = fed(CASES[0], [])
    with torch.inference_mode():
        metric.reset()
        data[0].feed(metric)
    for batch in data[1:]:
        batch.feed(metric)
    equal(metric.compute(), counted(data))


def collection(compute_groups: bool) -> MetricCollection:
    return MetricCollection(
        {f"{case.make.__name__}{i}": case.make(TASKS, **case.references) for i, case in enumerate(CASES)},
        compute_groups=compute_groups,
    )


def test_a_collection_counts_once_for_all(generator: torch.Generator) -> None:
    data = batches(generator)
    together, apart = collection(compute_groups=True), collection(compute_groups=False)
    for batch in data:
        batch.feed(together)
        batch.feed(apart)
    assert [len(group) for group in together.compute_groups.values()] == [len(CASES)]
    found, expected = together.compute(), apart.compute()
    for name in expected:
        equal(found[name], expected[name])


def test_directions_are_declared() -> None:
    better = {case.make.__name__: case.make.higher_is_better for case in CASES}
    assert [name for name, value in better.items() if not value] == ["Forgetting", "Intransigence"]
    assert not any(case.make.is_differentiable or case.make.full_state_update for case in CASES)


def test_a_metric_of_ones_own() -> None:
    class WorstAccuracy(fm.MatrixMetric):
        """The worst accuracy after the last task."""

        def of_matrix(self, matrix: Tensor) -> Tensor:
            return matrix[-1].amin()

    metric = WorstAccuracy(1)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 0]), learnt=0, task=0)
    assert metric.compute().item() == 0.5
