"""The documentation: its Python runs, its links lead somewhere, its pictures say what they show."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
import torch
from torch import nn

import fgadahat_hooks as fh
from tests.support.page_runner import run
from tests.support.tree import ROOT

PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]
FENCE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ fgadahat-hooks (.+?)(?: > (\S+))?$", re.MULTILINE)
LEFT_OUT = re.compile(r"<!-- not run: (\S(?:(?!-->).)*?) -->\s*\Z", re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")
ADDRESS = re.compile(r"\]\((\w+:[^)\s]*)\)|<(https?:[^>\s]*)>")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
QUICK_START = ROOT / "docs" / "quickstart.md"
NAV = re.compile(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", re.MULTILINE)


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


def slugs(text: str) -> set[str]:
    """Return the anchors that the headings of a page get."""
    titles = re.findall(r"^#+ +(.+?)\s*$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def broken_links(page: Path) -> list[str]:
    """List the relative links of a page that lead to no file, or to no heading."""
    broken = []
    for target, anchor in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        file = (page.parent / target) if target else page
        if not file.exists():
            broken.append(target)
        elif anchor and file.suffix == ".md" and anchor not in slugs(file.read_text(encoding="utf-8")):
            broken.append(f"{target}#{anchor}")
    return broken


def badly_formed(text: str) -> list[str]:
    """List the addresses of a page that no browser could open: no host, another scheme, the wrong characters."""
    found = [inline or bare for inline, bare in ADDRESS.findall(text)]
    parts = [(address, urlsplit(address)) for address in found]
    return [a for a, p in parts if p.scheme not in ("https", "http") or "." not in p.netloc or not a.isascii()]


def quick_starts(text: str) -> dict[str, str]:
    """Map each quick start's title to its page: what all of them share, and its section alone, on its own lines."""
    head, data, *sections = SECTION.split(text)
    pages, above = {}, head + data
    for section in sections:
        title = section.splitlines()[0].removeprefix("## ")
        gap = "\n" * (text[: text.index(section)].count("\n") - above.count("\n"))
        pages[title] = above + gap + section
    return pages


def page_id(page: Path) -> str:
    """Name a page by its path in the tree."""
    return page.relative_to(ROOT).as_posix()


# A quick start runs section by section, and a page that another one is made from runs as that one.
RUN = [p for p in PAGES if p != QUICK_START and ".in" not in p.suffixes and script(p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", RUN, ids=page_id)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    done = run(script(page.read_text(encoding="utf-8")), page.name, tmp_path)
    assert done.returncode == 0, done.output


@pytest.mark.parametrize("title", quick_starts(QUICK_START.read_text(encoding="utf-8")))
def test_each_quick_start_runs_alone(title: str, tmp_path: Path) -> None:
    needs = {"Lightning": "lightning", "Accelerate": "accelerate", "Hugging Face Trainer": "transformers"}
    if title in needs:
        pytest.importorskip(needs[title])
    page = quick_starts(QUICK_START.read_text(encoding="utf-8"))[title]
    done = run(script(page), QUICK_START.name, tmp_path)
    assert done.returncode == 0, done.output


def test_the_commands_of_the_quick_start_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("torchvision")
    from typer.testing import CliRunner

    from fgadahat_hooks.cli.app import app

    monkeypatch.chdir(tmp_path)
    text = QUICK_START.read_text(encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(text.split('"""\\\n')[1].split('"""')[0], encoding="utf-8")
    fh.attach(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), {}, torch.randn(2, 4)).save("run")
    commands = COMMAND.findall(text)
    for arguments, target in commands:
        done = CliRunner().invoke(app, shlex.split(arguments), catch_exceptions=False)
        assert done.exit_code == 0, f"{arguments}: {done.output}"
        (tmp_path / (target or "output.txt")).write_text(done.stdout, encoding="utf-8")
    assert len(commands) > 0
    assert (tmp_path / "report.html").stat().st_size > 0


def test_the_converted_arguments_are_the_spec_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from fgadahat_hooks.cli.app import app

    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "coming-from-clarena.md").read_text(encoding="utf-8")
    (tmp_path / "arguments.yaml").write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    done = CliRunner().invoke(app, ["convert", "arguments.yaml", "-o", "spec.yaml"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    literal = text.split("spec = ")[1].split("\n}\n")[0] + "\n}"
    assert fh.load_spec("spec.yaml") == fh.AttachSpec(**ast.literal_eval(literal))


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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=page_id)
def test_addresses_are_well_formed(page: Path) -> None:
    assert badly_formed(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_pictures_say_what_they_show(page: Path) -> None:
    pictures = PICTURE.findall(page.read_text(encoding="utf-8"))
    assert [file for text, file in pictures if not text.strip()] == []


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=lambda file: file.name)
def test_drawings_have_a_title_and_a_description(file: Path) -> None:
    root = ET.fromstring(file.read_text(encoding="utf-8"))  # noqa: S314  # a file of this tree
    texts = [root.findtext(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc")]
    assert all(texts)


def test_every_page_is_in_the_navigation() -> None:
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in PAGES if (ROOT / "docs") in p.parents}
    listed = NAV.findall((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert {page for page in pages if not page.endswith(".in.md")} == set(listed)
    assert len(listed) == len(set(listed))


def test_the_address_check_can_fail() -> None:
    page = "[a](https://example.org/x) [b](htps://example.org) [c](https:/example.org) <http://nowhere> [d](mailto:x)"
    assert badly_formed(page) == ["htps://example.org", "https:/example.org", "http://nowhere", "mailto:x"]


def test_quick_starts_keep_their_lines() -> None:
    text = "# Title\n\n## Data\n\n```python\nx = 1\n```\n\n## One\n\n## Two\n\n```python\ny = x\n```\n"
    assert list(quick_starts(text)) == ["One", "Two"]
    assert script(quick_starts(text)["Two"]).splitlines()[13] == "y = x"


def test_the_block_check_can_fail(tmp_path: Path) -> None:
    run_ones = ("```python\nx = 1\n```\n", "```python\nassert x == 2\n```\n")
    left_out = "<!-- not run: shows an error -->\n```python\nboom\n```\n"
    page = "\n".join(["Text.\n", run_ones[0], left_out, run_ones[1]])
    done = run(script(page), "page.md", tmp_path)
    assert done.returncode != 0
    assert 'page.md", line 13' in done.output
    assert "AssertionError" in done.output


def test_the_link_check_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Here I am\n[a](page.md#here-i-am) [b](gone.md) [c](#nowhere) [d](https://example.org/x)\n", encoding="utf-8"
    )
    assert broken_links(page) == ["gone.md", "#nowhere"]
