"""The reproduction's harness, on two tasks of the digits: what it writes, what it does not repeat, what it refuses."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import t as student
from torch import nn

from examples.reproduce import report
from examples.reproduce.__main__ import main
from examples.reproduce.claims import judged
from examples.reproduce.data import find_fashion_mnist, read_idx
from examples.reproduce.frozen import FrozenLearner
from examples.reproduce.methods import CHOSEN, METHODS, jobs_of, recipe
from examples.reproduce.recipe import Job, Recipe
from examples.reproduce.run import identities, scores
from examples.reproduce.statistics import interval, paired
from examples.reproduce.streams import STREAMS, Tasks
from examples.reproduce.tables import rows_of
from examples.reproduce.tune import SEED, trials

METHODS_HERE = ["finetune", "hat_share"]
ARGUMENTS = ["--stream", "S", "--tasks", "2", "--seeds", "1", "--jobs", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small grid that was run once."""
    path = tmp_path_factory.mktemp("reproduce")
    main([*ARGUMENTS, "--runs", str(path), "--methods", *METHODS_HERE])
    return path


def runs(folder: Path) -> list[dict[str, Any]]:
    files = [path for path in folder.glob("*.json") if path.name != "S.json"]
    return sorted((json.loads(path.read_text()) for path in files), key=lambda result: str(result["method"]))


# ------------------------------------------------------------------ what a grid writes
def test_every_run_has_its_json_and_no_part_is_left(folder: Path) -> None:
    assert sorted(result["method"] for result in runs(folder)) == METHODS_HERE
    assert not list(folder.glob("*.part"))


def test_both_identities_hold_in_every_run(folder: Path) -> None:
    for result in runs(folder):
        assert result["identities"]["average_is_learning_plus_transfer"] is True
        assert result["identities"]["forgetting_covers_transfer"] is True


def test_hard_hat_keeps_every_bit_and_fine_tuning_does_not(folder: Path) -> None:
    kept = {result["method"]: result["bit_identical"] for result in runs(folder)}
    assert kept == {"finetune": False, "hat_share": True}


def test_metrics_are_those_of_the_matrix_by_hand(folder: Path) -> None:
    for result in runs(folder):
        (first, nothing), (later, second) = result["matrix"]
        assert nothing is None
        assert result["metrics"]["average_accuracy"] == pytest.approx((later + second) / 2, abs=1e-12)
        assert result["metrics"]["learning_accuracy"] == pytest.approx((first + second) / 2, abs=1e-12)
        assert result["metrics"]["backward_transfer"] == pytest.approx(later - first, abs=1e-12)
        assert result["metrics"]["forgetting"] == pytest.approx(first - later, abs=1e-12)


def test_tables_and_figures_are_written(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text.count("## Stream S") == text.count("<!-- begin S -->") == 1
    assert all(f"| `{method}` |" in text for method in METHODS_HERE)
    summary = json.loads((folder / "S.json").read_text())
    assert sorted(summary) == METHODS_HERE
    assert sorted(path.name for path in folder.glob("*.svg")) == ["S_accuracy.svg", "S_capacity.svg", "S_trade.svg"]


def test_a_second_call_repeats_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.json") if path.name != "S.json"}
    main([*ARGUMENTS, "--runs", str(folder), "--methods", *METHODS_HERE])
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert "seed 0:" not in capsys.readouterr().out
    assert (folder / "README.md").read_text().count("| `hat_share` |") == 1


def test_a_report_runs_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*ARGUMENTS, "--report", "--runs", str(folder), "--out", str(tmp_path)])  # of all methods, two of which ran
    assert sorted(json.loads((tmp_path / "S.json").read_text())) == METHODS_HERE
    main([*ARGUMENTS, "--report", "--runs", str(tmp_path / "none"), "--out", str(tmp_path)])
    assert "Stream S has no runs yet." in capsys.readouterr().out


def test_a_page_keeps_the_methods_of_which_there_are_no_new_runs(folder: Path, tmp_path: Path) -> None:
    made = [result | {"cpu_seconds": 7.0} for result in runs(folder)]  # the JSON rounds them once, the page again
    old_torch = {"versions": {**made[0]["versions"], "torch": "1.0"}}
    renamed = [result | {"method": f"{result['method']}_old", **old_torch} for result in made]
    report.write([*renamed, made[0] | {"method": "same_torch"}], "S", tmp_path)
    before = json.loads((tmp_path / "S.json").read_text())["same_torch"]
    report.write(made, "S", tmp_path)
    kept = json.loads((tmp_path / "S.json").read_text())
    assert kept.pop("same_torch") == before
    assert list(kept) == [*METHODS_HERE, *(f"{name}_old" for name in METHODS_HERE)]
    assert [entry.get("earlier", False) for entry in kept.values()] == [False, False, True, True]
    assert kept["hat_share"]["runs"] == kept["hat_share_old"]["runs"]
    lines = (tmp_path / "README.md").read_text().splitlines()
    new, old = (
        next(line for line in lines if line.startswith(f"| `{name}`")) for name in ("hat_share", "hat_share_old")
    )
    assert old == new.replace("hat_share` |", "hat_share_old` ° |")
    report.write(runs(folder), "S", tmp_path, keep=False)
    assert list(json.loads((tmp_path / "S.json").read_text())) == METHODS_HERE


def test_claims_about_single_tasks_are_left_out_where_they_are_not_known() -> None:
    made = [made_up(method, 0.5, seed) for method in ("hat", "adahat") for seed in range(3)]
    lost = [result | {"matrix": None, "earlier": True} for result in made]
    text = [judged(rows_of(results, "A"), "A", split=False) for results in (made, lost)]
    assert ["AdaHAT is not better than HAT after 5 tasks" in each for each in text] == [True, False]
    assert all("AdaHAT > HAT at the end, both tuned" in each for each in text)


def test_a_frozen_network_changes_nothing_but_what_belongs_to_a_task() -> None:
    stream = replace(STREAMS["S"], tasks=2)
    tasks = Tasks(stream, 0, validate=False, folder=None)
    learner = FrozenLearner(stream, Recipe("frozen", lr=1e-2))
    weights = {name: p.clone() for name, p in learner.model.named_parameters() if not p.requires_grad}
    learner.learn(0, tasks.training(0), 1)
    x = tasks.judging(0)[0]
    before = learner.logits(0, x)
    learner.learn(1, tasks.training(1), 1)
    assert torch.equal(learner.logits(0, x), before)
    assert all(torch.equal(learner.model.get_parameter(name), old) for name, old in weights.items())
    assert len(weights) == 2


def test_a_narrow_network_has_its_part_of_the_hidden_units() -> None:
    network = STREAMS["B"].network(recipe("B", "independent_narrow"))
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)] == [13, 13, 10]
    with_norms = STREAMS["B"].network(recipe("B", "hat_share_norm"))
    assert sum(isinstance(m, nn.BatchNorm1d) for m in with_norms.modules()) == 2


def test_a_stopped_grid_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.reproduce import grid

    def stopped(job: Job, data: Path | None) -> dict[str, Any]:
        if job.method == "hat_share":
            raise KeyboardInterrupt
        return {"key": job.key, "method": job.method, "settings": job.settings, "metrics": scores(torch.eye(2))} | {
            "bit_identical": True,
            "cpu_seconds": 0.0,
        }

    monkeypatch.setattr(grid, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        main([*ARGUMENTS, "--runs", str(tmp_path), "--methods", *METHODS_HERE])
    assert [result["method"] for result in runs(tmp_path)] == ["finetune"]


# ------------------------------------------------------------------ settings
def test_a_key_depends_on_every_setting_but_not_on_the_name() -> None:
    base = Job("A", "a", 0, Recipe())
    others = [
        Job("B", "a", 0, Recipe()),
        Job("A", "a", 1, Recipe()),
        Job("A", "a", 0, Recipe(lr=2e-3)),
        Job("A", "a", 0, Recipe(spec={"regularization": {"factor": 1.0}})),
        Job("A", "a", 0, Recipe(), validate=True),
        Job("A", "a", 0, Recipe(), tasks=3),
    ]
    assert len({job.key for job in (base, *others)}) == 7
    assert Job("A", "another", 0, Recipe()).key == base.key


@pytest.mark.parametrize("stream", STREAMS)
def test_every_method_of_a_stream_has_a_valid_spec(stream: str) -> None:
    import fgadahat_hooks as fh

    for method in CHOSEN[stream]:
        found = recipe(stream, method)
        if found.kind == "gates":
            fh.AttachSpec.model_validate(found.spec)


@pytest.mark.parametrize(("stream", "tasks"), [("A", 10), ("B", 20), ("S", 20), ("C", 5), ("D", 5)])
def test_what_the_tables_call_presets_are_the_presets(stream: str, tasks: int) -> None:
    import fgadahat_hooks as fh

    presets = {"hat_share": "hat", "fg_icu_share": "fg_adahat", "adahat_share": "adahat"}
    for method, name in presets.items():
        assert fh.AttachSpec.model_validate(recipe(stream, method).spec) == fh.preset(name, tasks=tasks)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(SystemExit, match="but got hut"):
        jobs_of("S", ["hut"], 1, None)


@pytest.mark.parametrize(("stream", "count"), [("A", 8), ("S", 4), ("C", 4)])
def test_tuning_is_on_validation_on_a_seed_of_its_own_with_one_budget(stream: str, count: int) -> None:
    reported = max(job.seed for name in STREAMS for job in jobs_of(name, None, None, None))
    for method in METHODS:
        jobs = trials(stream, method)
        more = 2 if (stream, method) == ("A", "hat_share_small_step") else 1  # a limit of its rates, too
        assert len({job.key for job in jobs}) == more * count
        assert all(job.validate and job.seed == SEED > reported for job in jobs)


# ------------------------------------------------------------------ streams
def test_task_one_is_not_permuted_and_the_others_are() -> None:
    tasks = Tasks(STREAMS["S"], 0, validate=False, folder=None)
    first, second = tasks.judging(0)[0], tasks.judging(1)[0]
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=1).values, second.sort(dim=1).values)
    torch.testing.assert_close(
        torch.cat([x for x, _ in tasks.training(0)]).mean(), torch.tensor(0.0), atol=1e-4, rtol=0
    )


def test_order_and_permutations_are_the_same_for_every_method() -> None:
    one, two = (Tasks(STREAMS["S"], 3, validate=False, folder=None) for _ in range(2))
    for (x, y), (u, v) in zip(one.training(5), two.training(5), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    again = one.training(5)
    assert not torch.equal(next(iter(again))[1], next(iter(again))[1])  # another order in each epoch


def test_validation_is_held_out_of_training_and_is_no_test_image() -> None:
    tasks = Tasks(STREAMS["S"], 1, validate=True, folder=None)
    trained = torch.cat([x for x, _ in tasks.training(0)])
    held_out = tasks.judging(0)[0]
    test = Tasks(STREAMS["S"], 1, validate=False, folder=None).judging(0)[0]
    assert (len(trained), len(held_out), len(test)) == (1260, 140, 397)
    assert torch.cdist(held_out, trained).amin() > 0
    assert torch.cdist(held_out, test).amin() > 0


def test_idx_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])))
    assert read_idx(path).tolist() == [[1, 2, 3], [4, 5, 255]]


def test_missing_files_are_reported_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"are not there.*--data DIR --download"):
        find_fashion_mnist(tmp_path)


# ------------------------------------------------------------------ numbers
@pytest.mark.parametrize("count", [2, 5, 10, 20])
def test_intervals_are_students(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    found = interval(values.tolist())
    half = student.ppf(0.975, count - 1) * float(values.std()) / math.sqrt(count)
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.half == pytest.approx(half, rel=1e-3)


def test_one_seed_has_no_interval_and_judges_nothing() -> None:
    assert interval([0.5]).text() == "50.0"
    assert interval([0.5]).text(sign="+") == "+50.0"
    text = judged(rows_of([made_up("hat", 0.5, 0), made_up("adahat", 0.6, 0)], "A"), "A", split=False)
    assert "| AdaHAT > HAT at the end, both tuned | +10.0 points, one seed | open, seeds: 1 |" in text
    assert math.isinf(interval([0.5]).half)


def test_paired_differences_are_seed_by_seed() -> None:
    found = paired([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    assert found.mean == pytest.approx(0.1)
    assert found.half == pytest.approx(0, abs=1e-12)


def test_metrics_that_are_not_defined_are_none() -> None:
    nothing = torch.full((2, 2), torch.nan, dtype=torch.float64)
    nothing[1] = 0.5  # as a joint run has it: only the last row
    assert scores(nothing)["average_accuracy"] == 0.5
    assert scores(nothing)["learning_accuracy"] is None
    assert identities(nothing)["difference"] is None


def made_up(method: str, gain: float, seed: int) -> dict[str, Any]:
    return {
        "method": method,
        "settings": {"stream": "A", "seed": seed, "recipe": {"spec": {"adjustment": {"mode": method}}}},
        "matrix": [[gain] * 5] * 5,
        "metrics": {"average_accuracy": gain, "learning_accuracy": gain, "backward_transfer": -0.1 * gain},
        "looks": [{"capacity": 0.5}] * 5,
        "bit_identical": method == "hat",
    }


def test_claims_have_a_figure_and_a_verdict() -> None:
    gains = {"hat": 0.5, "hat_share": 0.8, "adahat": 0.6, "finetune": 0.7, "independent": 0.81}
    results = [made_up(method, gain, seed) for method, gain in gains.items() for seed in range(3)]
    text = judged(rows_of(results, "A"), "A", split=False)
    assert "| AdaHAT > HAT at the end, both tuned | +10.0 points (+10.0 to +10.0) | held |" in text
    assert "| The same of HAT tuned | 50.0 % after 5 tasks, 50 % at the end | not held |" in text
    assert "| HAT forgets nothing: logits bit-identical | 3 runs, every earlier logit equal: True | held |" in text
    assert "| Aim: `hat_share` within 1.5 points of `independent` | -1.0 points (-1.0 to -1.0) | held |" in text
    assert "`frozen`" not in text
