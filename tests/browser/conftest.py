"""A real browser for the whole session, and a site for it to show; skipped where there is no chromium."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import diagnose_row, make_run


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


@pytest.fixture(scope="session")
def findings_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sound pairs, the less coherent the more robust, recurrent twins ahead; and one that is doubted."""
    pytest.importorskip("jinja2")
    from robustframe.report.site import build_site

    folder, rng = tmp_path_factory.mktemp("findings"), np.random.default_rng(0)
    verdicts, coherence = {}, {}
    # Each withstands what those before it do and more.
    order = rng.permutation(60)
    for at, name in enumerate([f"m{number}" for number in range(6)] + ["doubted"]):
        for twin, count in (("feedforward", 20 + 5 * at), ("recurrent", 30 + 5 * at)):
            coherence[f"{name}/{twin}"] = 0.9 - at / 10
            verdicts[f"{name}/{twin}", "linf:0.1"] = (np.full(60, True), np.isin(np.arange(60), order[:count]))
    run = make_run(folder / "run", verdicts, coherence=coherence)
    for row in range(14):
        diagnose_row(run, passed=row < 12, row=row)
    return build_site([str(run)], folder / "site").folder
