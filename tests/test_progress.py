"""A bar is drawn only on a terminal, only for long work, and one at a time."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from rich.console import Console
from rich.live import Live
from torch import nn

import fgadahat_hooks as fh
from fgadahat_hooks import progress as module
from fgadahat_hooks.errors import MissingDependencyError
from fgadahat_hooks.progress import NO_BAR, progress, require, track


class Terminal(io.StringIO):
    """A terminal that records what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat all work as long, and remove variables that suppress bars from the environment."""
    monkeypatch.setattr(module, "DELAY", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FGADAHAT_PROGRESS", "NO_COLOR", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Give a function that replaces standard error and output by a terminal each, and returns that of standard error.

    The test has to call it, because pytest's capturing replaces what a fixture sets in `sys`.
    """

    def use() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", Terminal())
        return stream

    return use


def work() -> None:
    with progress("working", 3) as bar:
        for _ in range(3):
            bar.advance()


def test_a_bar_on_a_terminal_is_removed_at_the_end(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    work()
    assert "working" in seen.getvalue()
    assert "3/3" in seen.getvalue()
    assert seen.getvalue().endswith("\x1b[1A\x1b[2K")  # one line up, and cleared


def test_short_work_draws_no_bar(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = terminal()
    monkeypatch.setattr(module, "DELAY", 3600.0)
    work()
    assert seen.getvalue() == ""


def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)


def switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGADAHAT_PROGRESS", "0")


def another_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")


def dumb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")


@pytest.mark.parametrize("how", [no_terminal, no_stream, switched_off, another_rank, dumb])
def test_no_bar_is_drawn(how: Callable[[pytest.MonkeyPatch], None], terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    with pytest.MonkeyPatch.context() as patch:
        how(patch)
        with progress("working", 3) as bar:
            assert bar is NO_BAR
            bar.advance()
            bar.restart("again")
    assert seen.getvalue() == ""


def test_without_rich_no_bar_is_drawn_unless_asked_for(
    terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = terminal()
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    work()
    assert seen.getvalue() == ""
    with pytest.raises(MissingDependencyError, match=r"^this needs the package rich: pip install rich$"):
        require("this")


def test_a_bar_within_another_is_not_drawn(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    with progress("outer", 2) as bar:
        bar.advance()
        with progress("inner", 1) as inner:
            inner.advance()
        bar.advance()
    assert "outer" in seen.getvalue()
    assert "inner" not in seen.getvalue()


def test_a_bar_within_a_users_own_display_is_not_drawn(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    with Live("theirs", console=Console(stderr=True)):
        work()
    assert "theirs" in seen.getvalue()
    assert "working" not in seen.getvalue()


def test_an_outer_bar_shows_after_an_inner_one(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    with progress("outer", 2) as bar:
        with progress("inner", 1) as inner:
            inner.advance()
        bar.advance()
    text = seen.getvalue()
    assert text.index("inner") < text.index("outer")


def test_streams_are_restored_after_an_error(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()

    def fail() -> None:
        with progress("working") as bar:
            bar.advance()
            assert sys.stderr is not seen
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert sys.stderr is seen


def test_printed_output_goes_above_the_bar(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    stdout = sys.stdout
    with progress("working", 2) as bar:
        bar.advance()
        sys.stdout.write("a line\n")
        assert sys.stdout is not stdout
    assert "a line" in seen.getvalue()


def test_piped_output_is_not_redirected(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = terminal()
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    with progress("working", 2) as bar:
        bar.advance()
        sys.stdout.write("a line\n")
    assert pipe.getvalue() == "a line\n"
    assert "a line" not in seen.getvalue()


def test_track_yields_the_items(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    assert list(track([1, 2, 3], "items [bold]", 3)) == [1, 2, 3]
    assert "items [bold]" in seen.getvalue()


def test_closing_track_removes_its_bar(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    items = track(range(3), "items", 3)
    next(items)
    next(items)
    assert sys.stderr is not seen
    items.close()  # type: ignore[attr-defined]  # a generator
    assert sys.stderr is seen


def test_more_steps_than_expected_stay_at_the_end(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    with progress("working", 2) as bar:
        bar.restart("again")
        bar.advance(5)
    assert "2/2" in seen.getvalue()
    assert "again" in seen.getvalue()
    assert "5/2" not in seen.getvalue()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are Unix's")
def test_on_a_real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        work()
    shown = ""
    with suppress(OSError):  # on Linux, raised when the other end is closed
        while part := os.read(ours, 100_000):
            shown += part.decode()
    os.close(ours)
    assert "working" in shown
    assert "3/3" in shown


# ------------------------------------------------------------------ where it is used
def attached() -> tuple[fh.Session, nn.Module]:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return fh.attach(model, {}, torch.randn(4, 4)), model


def learnt() -> fh.Session:
    session, model = attached()
    for name in ("a", "b"):
        with session.task(name) as task:
            optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
            for x in task.batches([torch.randn(4, 4)] * 2):
                model(x).sum().backward()
                optimizer.step()
    return session


def test_tracing_counts_the_modules_that_ran(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    session, _ = attached()
    assert "tracing Sequential" in seen.getvalue()
    assert "3/3" in seen.getvalue()
    assert len(session.graph.layers) == 1


def test_a_trace_is_the_same_with_a_bar(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGADAHAT_PROGRESS", "0")
    without, _ = attached()
    monkeypatch.delenv("FGADAHAT_PROGRESS")
    seen = terminal()
    watched, _ = attached()
    assert "tracing" in seen.getvalue()
    assert str(watched.plan) == str(without.plan)


def test_verifying_counts_tasks_and_stages(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = terminal()
    monkeypatch.setenv("FGADAHAT_PROGRESS", "0")
    session = learnt()
    monkeypatch.delenv("FGADAHAT_PROGRESS")
    session.verify()
    assert "verifying" in seen.getvalue()
    assert "4/4" in seen.getvalue()
    session.verify(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    assert "10/10" in seen.getvalue()


def test_batches_are_counted_if_asked_for(terminal: Callable[[], Terminal]) -> None:
    seen = terminal()
    session, _ = attached()
    before = len(seen.getvalue())
    with session.task("birds") as task:
        assert list(task.batches([1, 2], progress=True)) == [1, 2]
    assert "task birds" in seen.getvalue()[before:]
