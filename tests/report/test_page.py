"""The page: complete, escaped, self-contained, and honest about what is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch

from fgadahat_hooks.report.page import page
from fgadahat_hooks.summary.summary import RunSummary
from fgadahat_hooks.verify import VerifyReport
from tests.report.html_tree import Page
from tests.support import runs

RUNS = {
    "fg_adahat": lambda: runs.summary(),
    "hat": lambda: runs.summary("hat"),
    "no accuracy": lambda: runs.summary("hat", 2, False),
    "one task": lambda: runs.summary("fg_adahat", 1),
    "no task": lambda: runs.summary("fg_adahat", 0),
    "large": lambda: runs.large(30, 60),
}
SECTIONS = ["summary", "accuracy", "stability", "capacity", "overlap", "use", "rates", "importance", "plan"]
SECTIONS += ["verified", "spec"]


@cache
def html(name: str) -> str:
    return page(RUNS[name]())


def read(run: RunSummary) -> Page:
    return Page(page(run))


@pytest.mark.parametrize("name", RUNS)
def test_every_page_is_whole(name: str) -> None:
    found = Page(html(name))
    assert [section.attributes["id"] for section in found.all("section")] == SECTIONS
    assert [link.attributes["href"] for link in found.all("a")] == [
        "#content",
        *(f"#{section}" for section in SECTIONS),
    ]
    ids = [element.attributes["id"] for element in found.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for section in found.all("section"):
        assert section.attributes["aria-labelledby"] in ids


@pytest.mark.parametrize("name", RUNS)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = html(name)
    found = Page(text)
    assert found.all("script") == []
    assert re.findall(r"(?:https?:)?//[\w.]+|@import|url\(", text) == []
    assert [link.attributes["href"] for link in found.all("link")] == ["data:,"]
    (policy,) = found.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not any(name.startswith("on") for element in found.elements for name in element.attributes)


@pytest.mark.parametrize("name", RUNS)
def test_it_can_be_read_without_seeing_it(name: str) -> None:
    found = Page(html(name))
    assert found.all("html")[0].attributes["lang"] == "en"
    assert found.all("title")[0].text.startswith("Net: ")
    assert len(found.all("h1")) == len(found.all("main")) == len(found.all("header")) == len(found.all("nav")) == 1
    levels = [int(e.tag[1]) for e in found.elements if re.fullmatch("h[1-6]", e.tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for table in found.all("table"):
        assert table.children[0] == "caption"
    assert all(cell.attributes["scope"] in ("row", "col") for cell in found.all("th"))
    for picture in found.all("svg", role="img"):
        assert picture.children[:2] == ["title", "desc"]
    hidden = [svg for svg in found.all("svg") if svg.attributes.get("aria-hidden") == "true"]
    assert len(found.all("svg", role="img")) + len(hidden) == len(found.all("svg"))
    for region in found.all("div", class_="scroll"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["role"] == "region"
        assert region.attributes["aria-label"]


def test_ids_of_tasks_are_text() -> None:
    found = Page(html("fg_adahat"))
    assert "<script>alert('cars')</script>" in found.section("accuracy")
    assert "&lt;script&gt;" in html("fg_adahat")


@pytest.mark.parametrize("nasty", ["</title><img src=x onerror=alert(1)>", '"><b>', "a&amp;b", "\ud800", "", "\u202e"])
def test_any_text_stays_text(nasty: str) -> None:
    run = runs.summary()
    layers = {f"{nasty}.{name}": units for name, units in run.layers.items()}
    renamed = replace(
        run,
        model=f"module.{nasty}",
        tasks=(nasty,),
        layers=layers,
        masks={nasty: {f"{nasty}.{name}": mask for name, mask in run.masks["birds"].items()}},
        summed_importance={f"{nasty}.{name}": value for name, value in run.summed_importance.items()},
        capacity={nasty: 0.5},
        rates={nasty: {f"{nasty}.weight": 0.5}},
        accuracy=torch.ones(1, 1),
    )
    found = read(renamed)
    assert found.all("img") == found.all("b") == []
    assert found.all("h1")[0].text == nasty


def test_numbers_of_the_accuracy_matrix() -> None:
    found = Page(html("fg_adahat"))
    text = found.section("accuracy")
    assert "90.0 – –" in text
    assert "70.0 80.0 100.0" in text
    stability = found.section("stability")
    for expected in (
        "learning accuracy (plasticity) 90.0 %",
        "backward transfer (stability) −10.0 points",
        "forgetting 10.0 points",
        "average accuracy 83.3 %",
        "90.0 → 70.0 % (−20.0)",
        "80.0 → 80.0 %",
    ):
        assert expected in stability


def test_tiles() -> None:
    text = Page(html("fg_adahat")).section("summary")
    run = runs.summary()
    assert "Average accuracy 83.3 % over 3 tasks, at the end" in text
    assert "Forgetting 10.0 points" in text
    assert f"Network capacity {100 * (run.capacity[2] or 0):.1f}" not in text  # that of the last task, not the second
    assert f"Network capacity {100 * (run.capacity[runs.TASKS[-1]] or 0):.1f} %" in text
    assert f"Free units {100 * (1 - run.use_after()[-1]):.1f} % of 20 are used by no task" in text
    assert "Verified not run" in text


MISSING = {
    "no accuracy": {
        "accuracy": "No accuracies are known. Pass report(..., accuracy=matrix)",
        "stability": "none are known",
        "importance": "This run measures no importance: HAT and AdaHAT do without.",
    },
    "one task": {"stability": "need two tasks", "overlap": "Overlap needs two finished tasks."},
    "no task": {
        "accuracy": "No accuracies are known.",
        "capacity": "No task has ended yet",
        "use": "No task has ended yet",
        "overlap": "Overlap needs two",
        "importance": "No task has ended yet",
        "rates": "No task has ended yet",
    },
    "hat": {"verified": "Nobody has called session.verify() on this run."},
}


@pytest.mark.parametrize(("name", "section"), [(name, s) for name, found in MISSING.items() for s in found])
def test_missing_data_is_reported(name: str, section: str) -> None:
    assert MISSING[name][section] in Page(html(name)).section(section)


def test_nothing_empty_is_drawn() -> None:
    found = Page(html("no task"))
    assert found.all("svg", role="img") == []
    assert found.all("table", class_="heat") == []


def test_folders_of_early_releases() -> None:
    early = replace(runs.summary(), plan=None, capacity=dict.fromkeys(runs.TASKS), rates={})
    found = read(early)
    assert "An early release saved this run" in found.section("plan")
    assert "was not recorded" in found.section("capacity")
    assert "were not recorded" in found.section("rates")


def test_the_plan_has_every_row() -> None:
    plan = runs.summary().plan
    assert plan is not None
    text = Page(html("fg_adahat")).section("plan")
    for tensor in plan.tensors:
        assert f"{tensor.name} {tensor.protection} {tensor.kind} {tensor.role} {tensor.numel:,} {tensor.reason}" in text
    assert f"gated {sum(t.protection == 'gated' for t in plan.tensors)} {plan.count('gated'):,}" in text
    assert all(layer.name in text for layer in plan.layers)
    assert all(leak in text for leak in plan.leaks)
    hard = Page(html("hat")).section("plan")
    assert "Finished tasks keep their outputs bit for bit." in hard


def test_what_the_proof_found() -> None:
    tasks = runs.TASKS
    proofs = {
        "Verified yes 3 finished tasks keep their logits, bit for bit": VerifyReport(tasks, 10, 5, {}),
        "Verified no leak but the spec lets": VerifyReport(tasks, 10, 5, {}, ("adjustment.mode: fg_adahat lets",)),
        "Verified leaks 1 tensor change": VerifyReport(tasks, 10, 5, {"fc.weight": tasks}),
        "Verified in part 1 of 3 tasks": VerifyReport(tasks[:1], 10, 5, {}),
    }
    for words, proof in proofs.items():
        found = read(replace(runs.summary(), verified=proof))
        assert words in found.section("summary")
        assert " ".join(str(proof).split()) in found.section("verified")


def test_the_spec_is_there_as_json() -> None:
    found = Page(html("hat"))
    (text,) = [e.text for e in found.all("pre") if e.text.startswith("{")]
    assert json.loads(text) == runs.summary("hat").spec.model_dump(mode="json")


def test_an_interrupted_task_is_named() -> None:
    assert "task dogs; nothing of it is shown" in page(replace(runs.summary(), interrupted="dogs"))


def test_large_runs_stay_small() -> None:
    text = page(runs.large(100, 300))
    assert len(text.encode()) < 3_000_000
    found = Page(text)
    assert found.all("table", class_="heat") == []
    assert "100 rows (after learning) and 100 columns (task), too many for numbers" in found.section("accuracy")
    assert "task 99" in found.section("accuracy")
    assert len(found.all("svg", class_="map")) == 5


def test_the_same_run_gives_the_same_page() -> None:
    assert page(runs.summary()) == page(runs.summary())
