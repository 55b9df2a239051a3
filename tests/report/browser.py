"""Chromium without a window, for tests of pages; they are skipped where there is none."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to render the report in")


def browse(path: Path, *options: str) -> subprocess.CompletedProcess:
    """Load a page; what it writes to the console is on stderr, in lines with CONSOLE."""
    quiet = "no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update disable-sync"
    switches = [f"--{name}" for name in quiet.split()]
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [str(CHROMIUM), "--headless", *switches, profile, "--enable-logging=stderr", *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def after(page: str, steps: str, folder: Path) -> str:
    """The page's elements after a script of the test's has run in it, which the page's own policy would not allow."""
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    path = folder / "driven.html"
    path.write_text(text.replace("</body>", f"<script>{steps}</script></body>"), encoding="utf-8")
    done = browse(path, "--dump-dom", "--window-size=1000,1400", "--virtual-time-budget=2000")
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout
