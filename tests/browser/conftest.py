"""A real browser for the whole session, and a site for it to show; skipped where there is no chromium."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium, or any that stands in the path."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a chromium")
    with sync_api.sync_playwright() as playwright:
        # Containers run tests as root, whom the sandbox refuses.
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def site(shown_run: Path, disguise: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair under two threats, another of a bad name, one whose numbers are doubtful and one that is not finished."""
    pytest.importorskip("jinja2")
    from robustframe.report.site import build_site

    folder = tmp_path_factory.mktemp("browser")
    unknown = {"status": "started", "results": None, "verdicts_sha256": None, "evidence_sha256": None}
    runs = [
        shown_run,
        disguise(shown_run, folder / "evil", '<img src=x onerror="document.title=1">' + "very-long-name-" * 8),
        disguise(shown_run, folder / "begun", "begun", **unknown),
    ]
    return build_site([str(run) for run in runs], folder / "site").folder
