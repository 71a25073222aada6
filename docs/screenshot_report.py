"""Take the pictures of docs/report.md from a report, in a headless Chromium.

    python docs/screenshot_report.py build/demo/report.html

It needs `pip install playwright` and a Chromium: one on the PATH, or the one that FGADAHAT_CHROMIUM names.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
SHOTS: dict[str, tuple[int, int, Literal["light", "dark"]]] = {
    "report.png": (1180, 1560, "light"),
    "report-dark.png": (1180, 700, "dark"),
    "report-phone.png": (360, 760, "light"),
}
"""Width and height of each picture's window, in pixels, and the colour scheme."""


def chromium() -> str | None:
    """Return the path of a Chromium, None if there is none."""
    named = os.environ.get("FGADAHAT_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def shoot(report: Path, folder: Path, whole: bool) -> None:
    """Write the pictures of a report into a folder.

    Args:
        report: The HTML file.
        folder: Where the pictures go.
        whole: Show the whole page rather than what a window shows.
    """
    with sync_playwright() as play:
        # Chromium's sandbox does not run as root, which is what containers are.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = play.chromium.launch(executable_path=chromium(), args=options)
        for name, (width, height, scheme) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(report.resolve().as_uri())
            page.screenshot(path=folder / name, full_page=whole)
            page.close()
        browser.close()


def main() -> None:
    """Read the arguments, and take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path, help="the HTML file")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "images", help="where the pictures go")
    parser.add_argument("--whole", action="store_true", help="show the whole page")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    shoot(options.report, options.folder, options.whole)


if __name__ == "__main__":
    main()
