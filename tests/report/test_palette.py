"""The colours are ordered by lightness, and text on each is readable."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fgadahat_hooks.report.palette import LEVELS, PALETTE, contrast, level, scale, text_on

TEXT = ("ink", "soft", "accent", "second", "good", "bad")
GROUNDS = ("ground", "paper", "inset")
READABLE = 4.5
SEEN = 3.0
"""Minimum contrast by WCAG for text, and for parts of pictures."""


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("text", TEXT)
@pytest.mark.parametrize("ground", GROUNDS)
def test_text_can_be_read(text: str, ground: str, scheme: int) -> None:
    assert contrast(PALETTE[text][scheme], PALETTE[ground][scheme]) >= READABLE


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_numbers_in_cells_can_be_read(scheme: int) -> None:
    assert min(contrast(colour, text_on(colour)) for colour in scale(scheme)) >= READABLE


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_more_is_further_from_the_paper(scheme: int) -> None:
    away = [contrast(colour, PALETTE["paper"][scheme]) for colour in scale(scheme)]
    assert len(away) == LEVELS
    assert all(before < after for before, after in pairwise(away))
    assert away[-1] > SEEN
    assert away[0] < 1.25


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize(("value", "expected"), [(-1.0, 0), (0.0, 0), (0.5, 12), (1.0, 24), (7.0, 24)])
def test_level(value: float, expected: int) -> None:
    assert level(value) == expected
