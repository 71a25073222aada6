"""The documentation: its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.tree import ROOT

PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
FENCE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LEFT_OUT = re.compile(r"<!-- not run: (\S(?:(?!-->).)*?) -->\s*\Z", re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")

# Warnings of the imports themselves are not the page's.
PRELUDE = (
    "import warnings, torch, fgadahat_hooks; torch.set_num_threads(1); torch.manual_seed(0); "
    "warnings.simplefilter('error')"
)


class Block(NamedTuple):
    """One fenced Python block: its first line's number, its text, and why it is not run, if it is not."""

    line: int
    code: str
    left_out: str | None


def blocks(text: str) -> list[Block]:
    """Find the Python blocks of a page; `<!-- not run: reason -->` right before one leaves it out."""
    found = []
    for match in FENCE.finditer(text):
        reason = LEFT_OUT.search(text[: match.start()])
        found.append(Block(text.count("\n", 0, match.start(1)) + 1, match[1], reason[1] if reason else None))
    return found


def script(text: str) -> str:
    """Join the blocks that run into one script, each on the lines it has in the page, so that tracebacks fit."""
    lines: list[str] = []
    for block in blocks(text):
        if block.left_out is None:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
    return "\n".join(lines)


def run(code: str, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's script in a fresh interpreter, in an empty folder."""
    file = folder / name
    file.write_text(code, encoding="utf-8")
    start = f"{PRELUDE}; import runpy; runpy.run_path({str(file)!r}, run_name='__main__')"
    work = folder / "work"
    work.mkdir()
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {start}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=work, check=False)


def slugs(text: str) -> set[str]:
    """Return the anchors that the headings of a page get."""
    titles = re.findall(
        r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def broken_links(page: Path) -> list[str]:
    """List the relative links of a page that lead to no file, or to no heading."""
    broken = []
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        if not file.exists():
            broken.append(target)
        elif anchor and file.suffix == ".md" and anchor not in slugs(file.read_text(encoding="utf-8")):
            broken.append(f"{target}#{anchor}")
    return broken


def page_id(page: Path) -> str:
    """Name a page by its path in the tree."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if script(p.read_text(encoding="utf-8"))], ids=page_id)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    done = run(script(page.read_text(encoding="utf-8")), page.name, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (f"{page_id(page)}:{block.line}", block.left_out)
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.left_out
    ],
)
def test_python_blocks_left_out(place: str, reason: str) -> None:
    pytest.skip(f"{place}: {reason}")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=page_id)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_block_check_can_fail(tmp_path: Path) -> None:
    run_ones = ("```python\nx = 1\n```\n", "```python\nassert x == 2\n```\n")
    left_out = "<!-- not run: shows an error -->\n```python\nboom\n```\n"
    page = "\n".join(["Text.\n", run_ones[0], left_out, run_ones[1]])
    done = run(script(page), "page.md", tmp_path)
    assert done.returncode != 0
    assert 'page.md", line 13' in done.stderr
    assert "AssertionError" in done.stderr


def test_the_link_check_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Here I am\n[a](page.md#here-i-am) [b](gone.md) [c](#nowhere) [d](https://example.org/x)\n", encoding="utf-8"
    )
    assert broken_links(page) == ["gone.md", "#nowhere"]
