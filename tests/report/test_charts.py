"""The charts draw the values they are given."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from markupsafe import Markup

from fgadahat_hooks.report.heat_map import MAX_CELLS, MAX_COLUMNS, HeatMap
from fgadahat_hooks.report.histogram import BINS, histogram
from fgadahat_hooks.report.line_chart import HEIGHT, Series, line_chart, x_percent
from fgadahat_hooks.report.pairs_chart import pairs_chart
from fgadahat_hooks.report.svg import element, picture
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary
from tests.report.html_tree import Element, Page

NAN = float("nan")


def drawn(picture: Markup, tag: str, class_: str | None = None) -> list[Element]:
    return Page(picture).all(tag, **({} if class_ is None else {"class_": class_}))


# ------------------------------------------------------------------ svg
def test_elements_are_escaped() -> None:
    assert element("text", "<&>", class_="a b", x='"', data_name=None) == (
        '<text class="a b" x="&#34;">&lt;&amp;&gt;</text>'
    )
    assert element("g", element("line", x1=0, y1=1 / 3)) == '<g><line x1="0" y1="0.3333"></line></g>'


def test_a_picture_has_a_name_first() -> None:
    found = Page(picture("Title", "What it shows", height=10)).elements
    assert [e.tag for e in found] == ["svg", "title", "desc"]
    assert found[0].attributes == {"role": "img", "class": "chart", "width": "100%", "height": "10"}


# ------------------------------------------------------------------ lines
def test_lines_go_through_their_values() -> None:
    found = line_chart("T", "D", (Series("one", (1.0, 0.5, 0.0)), Series("two", (0.25, 0.25, 0.25))), "tasks")
    first, second = drawn(found, "path")
    assert first.attributes["d"] == "M2 0L50 50M50 50L98 100"
    assert second.attributes["d"] == "M2 75L50 75M50 75L98 75"
    assert [e.attributes["cy"] for e in drawn(found, "circle")] == ["0", f"{HEIGHT / 2:.4g}", f"{HEIGHT}"]
    assert [e.text.strip() for e in drawn(found, "circle")][1] == "one, task 2: 50.0 %"
    assert len(drawn(found, "rect")) == 3


def test_gaps_are_not_drawn() -> None:
    found = line_chart("T", "D", [Series("one", (0.5, NAN, 0.5, 0.5))], "tasks")
    assert drawn(found, "path")[0].attributes["d"].count("M") == 1
    assert len(drawn(found, "circle")) == 3


@pytest.mark.parametrize("count", [1, 2, 11, 100])
def test_there_are_few_numbers_below(count: int) -> None:
    found = line_chart("T", "D", [Series("one", (0.5,) * count)], "tasks")
    numbers = [e.text.strip() for e in drawn(found, "text", "axis") if e.text.strip().isdigit()]
    assert numbers[0] == "1"
    assert len(numbers) <= 10
    assert len(drawn(found, "circle")) == (count if count <= 40 else 0)
    assert 0 <= x_percent(0, count) <= x_percent(count - 1, count) <= 100


# ------------------------------------------------------------------ pairs
def pairs(learnt: tuple[float, ...], end: tuple[float, ...], names: list[str]) -> Markup:
    return pairs_chart(AccuracySummary(learnt, end, NAN, NAN, NAN, NAN), names)


def test_pairs_stand_where_they_should() -> None:
    found = pairs((0.9, 1.0), (0.7, 1.0), ["birds", "a name that is longer than a phone is wide"])
    assert [e.attributes["cx"] for e in drawn(found, "circle")] == [f"{1 + 98 * 2 / 3:.4g}%", "99%"]
    texts = [e.text.strip() for e in drawn(found, "text")]
    assert texts == ["birds", "90.0 → 70.0 % (−20.0)", "a name that is longer…", "100.0 → 100.0 %", "70 %", "100 %"]
    assert "birds: 90.0 %, then 70.0 %" in drawn(found, "desc")[0].text


def test_pairs_with_a_gap() -> None:
    found = pairs((NAN, 0.5), (0.7, NAN), ["birds", "cars"])
    assert len(drawn(found, "circle")) == len(drawn(found, "rect")) == 1
    assert drawn(found, "line", "span") == []


# ------------------------------------------------------------------ histogram
def test_bars_are_as_high_as_the_counts() -> None:
    values = torch.tensor([0.0, 0.0, 1.0, 1.99])
    (path,) = drawn(histogram("fc", values, 2.0), "path")
    bars = dict(re.findall(r"M(\d+) 100v-([\d.]+)h", path.attributes["d"]))
    assert bars == {"0": "100", str(BINS // 2): "50", str(BINS - 1): "50"}


def test_all_zero_importances_are_one_bar() -> None:
    (path,) = drawn(histogram("fc", torch.zeros(5), 0.0), "path")
    assert path.attributes["d"].startswith("M0 100v-100h")
    assert path.attributes["d"].count("M") == 1


# ------------------------------------------------------------------ heat maps
def heat_map(values: list[list[float]], digits: int = 0) -> HeatMap:
    rows, columns = ([str(n) for n in range(len(part))] for part in (values, values[0]))
    return HeatMap("Title", "layer", "task", rows, columns, values, digits)


def test_cells() -> None:
    found = heat_map([[0.0, 1.0], [NAN, 0.5]], digits=1)
    assert found.numbered
    assert found.gaps
    cells = [[(cell.text, cell.level) for cell in row] for _, row in found.cells]
    assert cells == [[("0.0", 0), ("100.0", 24)], [("–", None), ("50.0", 12)]]
    assert not heat_map([[0.0]]).gaps


def test_large_maps_have_no_numbers() -> None:
    assert heat_map([[0.0] * MAX_COLUMNS]).numbered
    assert not heat_map([[0.0] * (MAX_COLUMNS + 1)]).numbered
    assert heat_map([[0.0]] * MAX_CELLS).numbered
    assert not heat_map([[0.0]] * (MAX_CELLS + 1)).numbered


def test_the_drawn_map_covers_every_cell_once() -> None:
    values = torch.rand(50, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[values < 0.2] = NAN
    found = heat_map(values.tolist())
    covered: dict[tuple[int, int], str] = {}
    for path in drawn(found.drawn, "path"):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.attributes["d"]):
            for column in range(int(x), int(x) + int(width)):
                assert (int(y), column) not in covered
                covered[int(y), column] = path.attributes["class"]
    levels = {(r, c): cell.level for r, (_, row) in enumerate(found.cells) for c, cell in enumerate(row)}
    assert covered == {key: "none" if n is None else f"cell h{n}" for key, n in levels.items()}
    numbers = [int(e.text) for e in drawn(found.drawn, "text")]
    assert numbers[0] == 1
    assert all(after > before for before, after in pairwise(numbers[: numbers.index(max(numbers[:12])) + 1]))
