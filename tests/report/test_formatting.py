"""Numbers are rounded, but a small difference is never shown as none."""

from __future__ import annotations

import pytest

from fgadahat_hooks.report.formatting import break_at_dots, counted, number, percent, points

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.983, 1, "98.3"),
        (0.0, 1, "0.0"),
        (-0.0, 0, "0"),
        (1.0, 0, "100"),
        (1e-5, 1, "<0.1"),
        (0.004, 0, "<1"),
        (0.9999, 1, ">99.9"),
        (0.996, 0, ">99"),
        (1 - 1e-12, 1, "100.0"),
        (NAN, 1, "–"),
        (None, 0, "–"),
    ],
)
def test_percent(value: float | None, digits: int, expected: str) -> None:
    assert percent(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "signed", "expected"),
    [
        (0.013, False, "1.3"),
        (0.013, True, "+1.3"),
        (-0.013, True, "−1.3"),
        (-0.0003, False, "−0.03"),
        (1e-17, True, "0.0"),
        (NAN, False, "–"),
    ],
)
def test_points(value: float, signed: bool, expected: str) -> None:
    assert points(value, signed) == expected


@pytest.mark.parametrize(("value", "expected"), [(12.0, "12.0"), (0.00123456, "0.00123"), (123.0, "123"), (NAN, "–")])
def test_number(value: float, expected: str) -> None:
    assert number(value) == expected


def test_counted() -> None:
    assert [counted(n, "task") for n in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    assert counted(1234, "parameter or buffer", "parameters and buffers") == "1,234 parameters and buffers"


def test_dotted_names_break_behind_dots_and_are_escaped() -> None:
    assert break_at_dots("layer1.<0>.conv") == "layer1.<wbr>&lt;0&gt;.<wbr>conv"
