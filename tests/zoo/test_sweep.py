"""The sweep itself: what it goes through, what it keeps, what it says, and that it can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision.models as published

from tests.zoo.sample import SAMPLE
from tests.zoo.sweep import runner
from tests.zoo.sweep.__main__ import main
from tests.zoo.sweep.catalogue import catalogue
from tests.zoo.sweep.examine import examine
from tests.zoo.sweep.page import write_page
from tests.zoo.sweep.row import Inputs, Kept, Row, load
from tests.zoo.sweep.runner import Runner
from tests.zoo.sweep.subject import Subject

NAME = "odd TiedWords"


def row(name: str = NAME, *, worst: float = 0.0, errors: tuple[str, ...] = ()) -> Row:
    kept = Kept(equal=worst == 0.0, worst=worst, moved=1.0, telling=0.5)
    counts = {"by_layer": Inputs(2, 1), "by_input": Inputs(99, 1), "closable": 50}
    return Row(name, "old", 1000, 3, 24, verified=True, kept={"adamw": kept}, errors=list(errors), **counts)  # type: ignore[arg-type]  # mypy sees one type for all


# ------------------------------------------------------------------ what it goes through
def test_the_catalogue_is_complete() -> None:
    names: dict[str, list[str]] = {}
    for subject in catalogue().values():
        names.setdefault(subject.family, []).append(subject.name)
    assert sorted(names["torchvision"]) == sorted(published.list_models(module=published))
    assert len(names["timm"]) >= 60
    words = {name.split()[1].rstrip(",") for name in names["transformers"]}
    assert words >= set("bert gpt2 llama t5 vit swin albert convnext wav2vec2".split())
    assert len(names["odd"]) >= 18


@pytest.mark.parametrize(
    ("pattern", "found"), [("vit_b_*", ["vit_b_16", "vit_b_32"]), ("Tied", [NAME]), ("no such", [])]
)
def test_patterns(pattern: str, found: list[str]) -> None:
    assert list(catalogue(pattern)) == found


# ------------------------------------------------------------------ rows and page
def test_a_row_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = row(worst=0.5, errors=("graph: ValueError: no",))
    saved.save(tmp_path)
    assert load(NAME, tmp_path) == saved
    assert load("odd Frozen", tmp_path) is None
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_what_is_a_leak() -> None:
    assert row().passed
    assert row(worst=0.5).leaks == ["adamw: logits changed by up to 5.0e-01"]
    assert replace(row(), verified=False).leaks == ["the static proof failed"]
    assert replace(row(), by_input=Inputs(unsafe=2)).leaks == ["2 unsafe inputs"]
    assert not replace(row(), errors=["x"]).passed


def test_the_page(tmp_path: Path) -> None:
    failed = row("odd Frozen", worst=0.25, errors=("sgd_kept: ValueError: no\nmore",))
    write_page([row(), failed], catalogue(), tmp_path / "zoo.md")
    text = (tmp_path / "zoo.md").read_text(encoding="utf-8")
    assert f"on 2 (of {len(catalogue())}, so far) architectures" in text
    assert "2 rows were measured on an earlier state" in text
    assert "- odd Frozen: adamw: logits changed by up to 2.5e-01; sgd_kept: ValueError: no\n" in text
    assert (
        "| 1,000 | 3 (24) | 2 | 1 | 0 | 0 | 99.0 % | 50.0 % | 0 | holds | same bits | - | 50% | 0.00 | 0.000 |" in text
    )
    assert "| **2.5e-01** |" in text
    assert "{{" not in text


# ------------------------------------------------------------------ the command
def run(folder: Path, *arguments: str) -> int:
    return main([*arguments, "--folder", str(folder), "--page", str(folder / "zoo.md")])


def test_the_status_reports_whether_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--only", NAME, "--page-only") == 1
    row().save(tmp_path)
    assert run(tmp_path, "--only", NAME, "--page-only") == 0
    row(worst=0.5).save(tmp_path)
    assert run(tmp_path, "--only", NAME, "--page-only") == 1
    assert f"{NAME}: adamw: logits changed by up to 5.0e-01" in capsys.readouterr().err
    assert run(tmp_path, "--only", "no such") == 2


def test_one_model_in_this_process(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "--one", NAME)
    found = load(NAME, tmp_path)
    assert ended.value.code == 0
    assert found is not None
    assert found.passed


def test_models_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    row().save(tmp_path)
    Runner(tmp_path, 1, 60, fresh=False).run([SAMPLE[NAME]])
    assert load(NAME, tmp_path) == row()


def test_a_process_that_takes_too_long_or_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOADED", [])
    Runner(tmp_path, 1, 0, fresh=True).run([SAMPLE[NAME]])
    found = load(NAME, tmp_path)
    assert found is not None
    assert "process: not done after 0 s" in found.errors[-1]


# ------------------------------------------------------------------ it can fail
@pytest.mark.parametrize("spec", [{"adjustment": {"mode": "hat_const_1"}}, {"norms": "share"}], ids=["rates", "norms"])
def test_a_leak_is_seen(spec: dict[str, object]) -> None:
    leaking = replace(SAMPLE["odd Frozen"], spec=spec)
    found = examine(leaking, lambda _: None)
    assert found.errors == []
    assert len([leak for leak in found.leaks if "logits changed" in leak]) == 2


def test_a_model_that_cannot_show_a_leak_is_an_error() -> None:
    blind = replace(SAMPLE[NAME], inputs=lambda count, _: torch.full((count, 5), 3))
    assert "VacuousError" in examine(blind, lambda _: None).errors[-1]


def test_a_model_that_cannot_be_built_is_an_error() -> None:
    def fail() -> None:
        raise ImportError("no such library")

    broken: Subject = replace(SAMPLE[NAME], make=fail)  # type: ignore[arg-type]  # that is the point
    assert examine(broken, lambda _: None).errors[0].startswith("build: ImportError: no such library")
