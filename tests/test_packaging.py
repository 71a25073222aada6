"""The package as it is installed: what the tree holds, no more and no less."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.tree import ADAPTERS, PACKAGE, ROOT, package_files, pyproject


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a copy of the tree, and the wheel from the sdist, without a network."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for file in ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / "fgadahat_hooks", symlinks=True, ignore=skip)
    shutil.copytree(ADAPTERS, source / "adapters", ignore=skip)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """Give the one wheel that was built."""
    (path,) = dist.glob("*.whl")
    return path


def test_the_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    expected = {*package_files(), *package_files("templates/*"), "fgadahat_hooks/py.typed"}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected


def test_the_wheel_holds_the_same_bytes(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    files = package_files() | package_files("templates/*")
    assert [name for name, path in files.items() if archive.read(name) != path.read_bytes()] == []


def test_the_sdist_holds_the_sources_and_the_license(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "fgadahat_hooks/py.typed"} <= names
    assert {p.relative_to(ROOT).as_posix() for p in package_files().values()} <= names


def test_the_wheel_can_be_imported(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel, tmp_path, format="zip")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import fgadahat_hooks, fgadahat_hooks.adapters\n"
        "print(fgadahat_hooks.__file__, fgadahat_hooks.adapters.__file__, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    files = [Path(line).resolve() for line in done.stdout.split("\n") if line]
    assert [tmp_path.resolve() in file.parents for file in files] == [True, True]


def test_every_folder_with_python_is_a_listed_package() -> None:
    folders = {str(Path(name).parent).replace("/", ".") for name in package_files()}
    assert folders == set(pyproject()["tool"]["setuptools"]["packages"])


def test_every_package_has_an_init() -> None:
    folders = {Path(name).parent.as_posix() for name in package_files()}
    assert {f"{folder}/__init__.py" for folder in folders} <= set(package_files())


def test_static_tools_see_the_adapters_through_a_link() -> None:
    link = PACKAGE / "adapters"
    assert link.is_symlink()
    assert link.readlink() == Path("../adapters")


def test_scripts_lead_to_functions_that_exist() -> None:
    scripts: dict[str, str] = pyproject()["project"].get("scripts", {})
    assert set(scripts) == {"fgadahat-hooks"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_changelog_knows_the_version() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == pyproject()["project"]["version"]
