"""The leaderboard: nothing mixed, nothing altered, nothing lost, and no name that gets out of its page or folder."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from made_up import diagnose_row, make_run
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("jinja2")

from robustframe.cli import app
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe
from robustframe.recipe import ModelSpec, Recipe, read_toml
from robustframe.report.figures import gather_examples
from robustframe.report.pixels import eight_bit
from robustframe.report.site import board, build, build_site
from robustframe.report.site.board import read_runs
from robustframe.report.site.build import page_names
from robustframe.report.site.drawing import nice_ticks
from robustframe.report.site.findings import coherence_answer, coherence_findings, twin_findings, twins_answer
from robustframe.report.site.provenance import provenance, recipe_toml
from robustframe.report.site.rows import BoardSection, sections
from robustframe.runs import Run, open_run
from robustframe.runs import run as run_module
from robustframe.runs.kept import read_kept, write_kept

EVIL = [
    "../../up", "..", "a/b", "a\\b", "/etc/passwd", "C:\\x", "nul", "COM1.txt", "con", "x" * 400, "Résnet", "模型", "",
    ".hidden", "trail.", "a b", "A-net", "a-net", "\0", "a\0b", "<script>alert(1)</script>", "%2e%2e%2f", "-",
    "e\u202ex",
]  # fmt: skip
Disguise = Callable[..., Path]


class Links(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.anchors: list[str] = []
        self.policies: list[str] = []
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.refers += [values[name] for name in ("href", "src") if name in values]
        self.anchors += [values["id"]] if "id" in values else []
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(values["content"])
        self.active += [name for name in values if name.startswith("on") or name == "style"]


def pages(site: Path) -> Iterator[tuple[Path, Links]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Links(path.read_text(encoding="utf-8"))


def mask(*right: int, n: int = 60) -> np.ndarray:
    return np.isin(np.arange(n), range(*right))


def tables(*runs: Path) -> list[list[tuple[str, int, bool]]]:
    """The ranked rows of every table."""
    found: list[BoardSection] = sections(read_runs([str(each) for each in runs], runs[0].parent))
    groups = [group for section in found for group in section.groups]
    return [[(each.row.first.called, each.rank, each.shared) for each in group.ranked] for group in groups]


@pytest.fixture
def evil_site(shown_run: Path, tmp_path: Path, disguise: Disguise) -> Path:
    names = ["../../up", "<script>alert(1)</script>", 'a"onx="1', "\0\u202e", "CON", "shown & co"]
    runs = [str(disguise(shown_run, tmp_path / "runs" / str(at), name)) for at, name in enumerate(names)]
    (tmp_path / "in").mkdir()
    return build_site([*runs, str(shown_run)], tmp_path / "in" / "site").folder


def test_every_model_has_a_file_of_its_own_inside_the_folder(tmp_path: Path) -> None:
    names = page_names([(name, "0" * 64) for name in EVIL] + [("a-net", "1" * 64)])
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert (tmp_path / f"{name}.html").resolve().parent == tmp_path.resolve()
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", name)
        assert not name.endswith(".")
        assert name.split(".")[0].casefold() not in {"con", "nul", "com1"}
    assert page_names([("resnet20", "0"), ("chain3-linf", "1")]) == ["resnet20", "chain3-linf"]


def test_no_name_gets_out_of_its_page_or_folder(evil_site: Path) -> None:
    assert [path.name for path in evil_site.parent.iterdir()] == ["site"]
    for path, links in pages(evil_site):
        text = path.read_text(encoding="utf-8")
        assert "<script>alert" not in text
        assert "\0" not in text
        assert "\u202e" not in text
        assert not links.active, path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (evil_site / "index.html").read_text()


def test_all_links_resolve_and_nothing_remote_is_named_or_allowed(evil_site: Path) -> None:
    found = dict(pages(evil_site))
    anchors = {path: links.anchors for path, links in found.items()}
    assert len(found) == 11
    for path, links in found.items():
        assert len(anchors[path]) == len(set(anchors[path])), path
        (policy,) = links.policies
        assert policy.startswith("default-src 'none';")
        assert not re.search(r"https?:|\*|unsafe", policy)
        for link in links.refers:
            if link.startswith("data:image/"):
                continue
            assert not re.match(r"[a-z]+:|//|/", link), link
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), (path, link)
            # A choice in an address is no place on a page.
            assert not anchor or "=" in anchor or anchor in anchors[target], (path, link)


def test_every_row_stands_with_interval_verdict_and_provenance(shown_run: Path, tmp_path: Path) -> None:
    site = build_site([str(shown_run)], tmp_path / "site").folder
    record = open_run(shown_run).record
    board, page = (site / "index.html").read_text(), (site / "models" / "tiny.html").read_text()
    rows = re.findall(r'<tr id="r-[0-9a-f]+" data-structure="chain" data-training="normal".*?</tr>', board, re.S)
    assert len(rows) == 2
    number = r'<span class="num">[+−]?[\d.]+</span> <span class="ci">\[[+−]?[\d.]+, [+−]?[\d.]+\]'
    for row in rows:
        for kind in ("robust ff", "robust rec", "diff"):
            assert re.search(rf'class="{kind}".*?{number}', row, re.S), kind
        assert 'class="verdict' in row
    seal = open_run(shown_run).seal
    assert f"seal {seal[:16]}" in (site / "index.html").read_text(encoding="utf-8")
    for said in (record.hash, record.data.sha256, record.evidence_sha256, record.classifiers[0].sha256, seal):
        assert f"<code>{said}</code>" in page
    assert page.count("<img src=") == 2 * 6
    assert (site / "examples.html").read_text().count("<img src=") == len(list((site / "examples").iterdir()))
    assert "robustframe evaluate shown-" in page
    recipe = tomllib.loads(next((site / "recipes").iterdir()).read_text())
    assert Recipe.model_validate(recipe).model_dump(by_alias=True) == record.recipe
    for result in record.results or []:
        for check in result.diagnosis.checks if result.diagnosis else []:
            assert check.sentence.replace("'", "&#39;") in page


def test_groups_are_never_mixed_and_ranks_are_shared(tmp_path: Path) -> None:
    one = make_run(
        tmp_path / "one", {("strong", "linf:0.1"): (mask(60), mask(52)), ("strong", "l2:1"): (mask(60),) * 2}
    )
    two = make_run(tmp_path / "two", {("weak", "linf:0.1"): (mask(60), mask(4))})
    # The same ball by another name.
    three = make_run(tmp_path / "three", {("near", "linf:1/10"): (mask(60), mask(50))})
    other = make_run(tmp_path / "other", {("elsewhere", "linf:0.1"): (mask(60), mask(60))}, data="2" * 64)
    found = tables(one, two, three, other)
    assert sorted(found, key=len) == [
        [("strong", 1, False)],
        [("elsewhere", 1, False)],
        [("strong", 1, True), ("near", 1, True), ("weak", 3, False)],
    ]


def test_the_best_founded_table_of_a_threat_comes_first(tmp_path: Path) -> None:
    few = make_run(tmp_path / "few", {("few", "linf:0.1"): (mask(60), mask(52))}, data="2" * 64)
    many = make_run(tmp_path / "many", {("many", "linf:0.1"): (mask(90, n=90), mask(52, n=90))}, data="3" * 64)
    doubted = make_run(tmp_path / "doubted", {("doubted", "linf:0.1"): (mask(99, n=99),) * 2}, data="4" * 64)
    diagnose_row(doubted, passed=False)
    other = make_run(tmp_path / "other", {("other", "l2:1"): (mask(70, n=70), mask(52, n=70))}, data="5" * 64)
    found = sections(read_runs([str(each) for each in (few, doubted, other, many)], tmp_path))
    names = [[[row.first.called for row in group.rows] for group in section.groups] for section in found]
    assert names == [[["many"], ["few"], ["doubted"]], [["other"]]]
    assert [section.key for section in found] == ["digits-test-linf-0.1", "digits-test-l2-1"]


def test_a_pair_is_one_row_with_the_difference_of_its_twins(tmp_path: Path) -> None:
    verdicts = {
        ("a/feedforward", "linf:0.1"): (mask(60), mask(20)), ("a/recurrent", "linf:0.1"): (mask(60), mask(50)),
        ("b/feedforward", "linf:0.1"): (mask(60), mask(40)), ("b/recurrent", "linf:0.1"): (mask(60), mask(10)),
    }  # fmt: skip
    run = make_run(tmp_path / "run", verdicts)
    (section,) = sections(read_runs([str(run)], tmp_path))
    rows = [placed.row for placed in section.groups[0].ranked]
    assert [row.first.called for row in rows] == ["a", "b"]
    assert [row.best.classifier.twin for row in rows] == ["recurrent", "feedforward"]
    for row, gain in zip(rows, (30, -30)):
        assert row.difference is not None
        assert row.difference.value == pytest.approx(gain / 60)
    # One twin is enough to put the pair apart.
    diagnose_row(run, passed=False, row=0)
    (section,) = sections(read_runs([str(run)], tmp_path))
    assert [(row.first.called, row.verdict) for row in section.groups[0].apart] == [("a", "suspicious")]


def test_numbers_of_sweeps_of_the_same_weights_are_one_row() -> None:
    (section,) = sections(read_runs(["evaluations/sweeps/results"], Path("runs")), lambda entry: 4)
    rows = section.groups[0].rows
    assert {row.first.called for row in rows} == {
        "fmnist-chain3-16", "fmnist-chain3-16-last", "fmnist-chain3-16-layered", "fmnist-chain3-16-one"
    }  # fmt: skip
    for row in rows:
        assert [each.classifier.sweeps for each in row.entries] == [1, 2, 4, 8, 16]
        assert [each.classifier.sweeps for each in row.shown] == [1, 4]


def test_findings_are_of_sound_pairs_and_say_on_which_side_they_lie(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean, verdicts, coherence = mask(60), {}, {}
    for at in range(6):
        for twin, count in (("feedforward", 20 + 5 * at), ("recurrent", 30 + 5 * at)):
            name = f"m{at}/{twin}"
            coherence[name] = 0.9 - at / 10
            verdicts[name, "linf:0.1"] = (clean, np.isin(np.arange(60), rng.permutation(60)[:count]))
    run = make_run(tmp_path / "run", verdicts, coherence=coherence)
    for row in range(12):
        diagnose_row(run, passed=row != 11, row=row)
    facts = SimpleNamespace(trained="normal", structure="chain")
    found = sections(read_runs([str(run)], tmp_path))
    (twins,) = twin_findings(found, lambda row: facts)
    assert (twins.pairs, twins.apart, twins.training) == (5, 1, "normal")
    assert twins.cell.value == pytest.approx(10 / 60)
    assert twins.cell.low is not None
    assert twins.cell.low > 0
    assert twins_answer([twins]) == (
        "The recurrent twin, under every threat", ["Trained normally: recurrent by 16.7 points at L∞ ≤ 0.1."]
    )  # fmt: skip
    against = coherence_findings(found, lambda row: facts)
    assert [(each.twin, each.cell.value) for each in against] == [("recurrent", -1), ("feedforward", -1)]
    assert coherence_answer(against)[0] == "Less coherent frames go with more robust models"
    assert coherence_answer([])[0] == "Not known: it takes 5 sound pairs under one threat"
    assert twins_answer([replace(twins, cell=replace(twins.cell, low=-1.0))])[0] == "The twins cannot be told apart"


def test_a_suspicious_number_is_not_ranked_beside_others_and_unreliable_elsewhere(tmp_path: Path) -> None:
    names = ("best", "doubted", "open", "worst")
    kept = (mask(60), mask(50), mask(48), mask(2))
    run = make_run(tmp_path / "run", {(name, "linf:0.1"): (mask(60), each) for name, each in zip(names, kept)})
    for at, passed in ((0, False), (1, True), (2, None), (3, True)):
        diagnose_row(run, passed=passed, row=at)
    assert tables(run) == [[("doubted", 1, False), ("worst", 2, False)]]
    (section,) = sections(read_runs([str(run)], tmp_path))
    assert [(row.first.called, row.verdict) for row in section.groups[0].apart] == [
        ("open", "unfinished"), ("best", "suspicious")
    ]  # fmt: skip
    site = build_site([str(run)], tmp_path / "site").folder
    files = [json.loads(path.read_text()) for path in (site / "model_info").rglob("*.json")]
    assert {each["name"]: each["unreliable"] for each in files} == {
        "best": True, "doubted": False, "open": True, "worst": False
    }  # fmt: skip


def test_a_run_that_is_not_finished_is_shown_as_such(shown_run: Path, tmp_path: Path, disguise: Disguise) -> None:
    unknown = {"status": "started", "results": None, "verdicts_sha256": None, "evidence_sha256": None}
    run = disguise(shown_run, tmp_path / "begun", "begun", **unknown)
    site = build_site([str(run), str(shown_run)], tmp_path / "site").folder
    rows = json.loads((site / "leaderboard.json").read_text())
    begun = [row for row in rows if row["model"] == "begun"]
    assert len(begun) == 4
    assert all(row["rank"] is row["robust"] is row["clean"] is None for row in begun)
    assert all(row["verdict"] == "begun" for row in begun)
    page = (site / "models" / "begun.html").read_text()
    assert "run not finished" in page
    assert "<img" not in page


def test_what_is_not_bound_to_its_record_is_refused(shown_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shown_run, run)
    for file in run.rglob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"\.safetensors is not what was written; `robustframe verify .*run` says more"
    ):
        build_site([str(run)], tmp_path / "site")
    other = tmp_path / "other"
    shutil.copytree(shown_run, other)
    (other / "verdicts.parquet").write_bytes((other / "verdicts.parquet").read_bytes() + b"x")
    with pytest.raises(InputError, match="is not what its record says"):
        build_site([str(other)], tmp_path / "site")
    (other / "verdicts.parquet").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the files in evidence.sha256, such as verdicts.parquet"):
        build_site([str(other)], tmp_path / "site")
    with pytest.raises(InputError, match="no run is given"):
        build_site([], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_published_copy_has_the_images_of_the_run_of_its_record(shown_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results"
    copy.mkdir()
    for name in ("record.json", "seal.sha256", "verdicts.parquet"):
        shutil.copy(shown_run / name, copy)
    page = Path("models/tiny.html")
    without = build_site([str(copy)], tmp_path / "site", run_folders=tmp_path).folder
    assert "No images are stored" in (without / page).read_text()
    for given, runs in ([copy, shown_run], tmp_path), ([copy], shown_run.parent), ([copy, copy], shown_run.parent):
        having = build_site([str(each) for each in given], tmp_path / "site", run_folders=runs)
        assert "<img" in (having.folder / page).read_text()
        assert having.rows == 4
    # A good run elsewhere does not answer for a copy that is not what was written.
    (copy / "verdicts.parquet").write_bytes((copy / "verdicts.parquet").read_bytes() + b"x")
    with pytest.raises(InputError, match="is not what its record says"):
        build_site([str(copy)], tmp_path / "site", run_folders=shown_run.parent)


def test_images_beside_a_copy_are_shown_only_where_its_verdicts_say(tmp_path: Path) -> None:
    copy = tmp_path / "results"
    shutil.copytree("evaluations/default/results", copy)
    site = build_site([str(copy)], tmp_path / "site").folder
    kept = {place: dict(images) for place, images in read_kept(copy).items()}
    # The twins of a pair, the first and the second or the third and the fourth, are shown beside each other.
    examples = {(position // 2, index) for (position, _), images in kept.items() for index in images}
    assert len(examples) >= 32
    assert (site / "examples.html").read_text().count("<img src=") == len(examples)
    next(iter(next(iter(kept.values())).values())).mul_(0.5)
    write_kept(copy, kept)
    with pytest.raises(InputError, match=r"broken.safetensors is not what its record says: example \d+ lies elsewhere"):
        build_site([str(copy)], tmp_path / "site")


def test_each_run_is_opened_once(shown_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, hashed = [], []
    monkeypatch.setattr(board, "open_run", lambda given, **how: opened.append(given) or open_run(given, **how))
    read = run_module.read_verdicts
    monkeypatch.setattr(run_module, "read_verdicts", lambda *given: hashed.append(given) or read(*given))
    build_site([str(shown_run)] * 2, tmp_path / "site")
    assert len(opened) == len(hashed) == 1


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_images_of_own_data_are_shown_with_the_clean_ones(tiny_card: Path, tmp_path: Path, kind: str) -> None:
    digits = load("digits").first(40)
    if kind == "file":
        np.savez(tmp_path / "own.npz", images=digits.images.numpy(), labels=digits.labels.numpy())
    for at, (image, label) in enumerate(zip(digits.images, digits.labels.tolist())):
        (tmp_path / "own" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(eight_bit(image)[:, :, 0]).save(tmp_path / "own" / str(label) / f"{at}.png")
    use = f"file:{tmp_path / 'own.npz'}" if kind == "file" else f"folder:{tmp_path / 'own'}"
    (tmp_path / "own.toml").write_text(
        'schema = 1\nname = "own"\nseed = 0\nchunk = 20\nthreats = ["linf:0.3"]\nbattery = ["shown.toml"]\n'
        f'diagnose = false\n[data]\nuse = "{use}"\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    attack = '[[attack]]\nuse = "pgd"\nsteps = 3\n'
    (tmp_path / "shown.toml").write_text(f'schema = 1\nname = "shown"\nversion = "0.1"\n{attack}')
    run = evaluate_recipe(tmp_path / "own.toml", runs=tmp_path / "runs", device="cpu")
    page = (build_site([str(run.folder)], tmp_path / "site").folder / "models" / "tiny.html").read_text()
    assert page.count('alt="Clean image, perturbation and adversarial image of example') == 6
    out = tmp_path / "examples.svg"
    done = CliRunner().invoke(app, ["figure", "examples", str(run.folder), "--out", str(out), "--count", "3"])
    assert done.exit_code == 0, done.exception
    assert out.read_text(encoding="utf-8").count("data:image/png") == 2 * 3 * 3
    shutil.rmtree(tmp_path / "own")
    (tmp_path / "own.npz").unlink(missing_ok=True)
    page = (build_site([str(run.folder)], tmp_path / "site").folder / "models" / "tiny.html").read_text()
    assert page.count('alt="Adversarial image of example') == 6
    with pytest.raises(InputError, match="own"):
        gather_examples([run])


def test_a_site_replaces_an_earlier_one_and_nothing_else(shown_run: Path, tmp_path: Path) -> None:
    out, runs = tmp_path / "site", [str(shown_run)]
    out.mkdir()
    build_site(runs, out)
    (out / "index.html").write_text("old")
    assert build_site(runs, out).folder == out
    assert "Robustness board" in (out / "index.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    (out / "CNAME").write_text("mine")
    with pytest.raises(InputError, match="holds CNAME besides"):
        build_site(runs, out)
    assert (out / "CNAME").read_text() == "mine"
    with pytest.raises(InputError, match="and is no earlier site"):
        build_site(runs, shown_run)
    with pytest.raises(InputError, match="is a file"):
        build_site(runs, shown_run / "record.json")
    with pytest.raises(InputError, match="cannot be written"):
        build_site(runs, Path("/proc/site"))


def test_an_earlier_site_stays_when_the_new_one_cannot_be_put_there(
    shown_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = build_site([str(shown_run)], tmp_path / "site").folder
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if Path(target) == out and not self.name == out.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="No space left"):
        build_site([str(shown_run)], out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_large_site_shows_less_rather_than_growing(
    shown_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_site([str(shown_run)], tmp_path / "whole")
    assert whole.examples == 32
    assert whole.size == sum(
        path.stat().st_size for path in whole.folder.rglob("*") if path.name != "site.json" and path.is_file()
    )
    monkeypatch.setattr(build, "LIMIT", whole.size - 4000)
    less = build_site([str(shown_run)], tmp_path / "less")
    assert less.size <= whole.size - 4000
    assert less.examples < 32


def test_the_site_is_the_same_bytes_again(shown_run: Path, tmp_path: Path) -> None:
    one, other = (build_site([str(shown_run)], tmp_path / name).folder for name in ("one", "other"))
    for path in one.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def test_commands_make_the_run_again(shown_run: Path) -> None:
    run = open_run("evaluations/default/results")

    def asked(name: str, recipe: dict[str, Any]) -> Run:
        return replace(run, record=run.record.model_copy(update={"name": name, "recipe": recipe}))

    record = run.record
    found = provenance(run, "evaluations/default/results", "x.toml")
    assert found.evaluate == "robustframe evaluate default"
    assert found.verify == "robustframe verify evaluations/default/results"
    changed = asked("default", {**record.recipe, "seed": 1})
    assert provenance(changed, "r", "default-1.toml").evaluate == "robustframe evaluate default-1.toml"
    typed = {**record.recipe, "name": "evaluate", "about": "", "threats": ["linf:8/255", "l2:1"]}
    called = provenance(asked("evaluate", typed), "/home/me/runs/x", "x.toml")
    assert called.recipe is None
    assert called.evaluate == (
        "robustframe evaluate --model zoo:fmnist-chain3 --model zoo:fmnist-chain3-linf --data fashion-mnist --split "
        "test --count 1000 --threat linf:8/255 --threat l2:1 --battery swift@2 --battery torchattacks@1 --seed 0"
    )
    assert "/home/me" not in called.verify
    python = asked("default", {"threats": ["linf:0.1"], "battery": ["quick@1"], "seed": 7, "chunk": 9})
    assert provenance(python, "my-run", "x.toml").evaluate == (
        "robustframe.evaluate(model, x, y, threat=['linf:0.1'], battery=['quick@1'], seed=7, chunk=9, "
        "name='fmnist-chain3')"
    )


@pytest.mark.parametrize("text", ['say "no"\\', "a\nb\tc", "\x7f\x01", "Résnet 模型 😀"])
def test_a_recipe_survives_its_way_through_toml(text: str) -> None:
    stated = Recipe.model_validate(
        {
            "schema": 1, "name": "r", "about": text, "seed": 2, "threats": ["linf:8/255"], "battery": ["quick"],
            "data": {"use": text, "count": None}, "diagnose": False,
            "model": [
                {"use": text, "twins": ["recurrent"]},
                {"use": "zoo:x", "name": text, "about": {"authors": [text, "B"], "year": 2026}},
            ],
        }
    ).model_dump(by_alias=True)  # fmt: skip
    assert Recipe.model_validate(tomllib.loads(recipe_toml(stated))).model_dump(by_alias=True) == stated


def test_only_autoattack_stands_under_its_name(shown_run: Path, tmp_path: Path, disguise: Disguise) -> None:
    battery = {"schema": 1, "name": "standard", "version": "1", "about": "", "attack": [{"use": "pgd"}]}
    run = disguise(shown_run, tmp_path / "run", "std", batteries=[battery])
    site = build_site([str(run), str(shown_run)], tmp_path / "site").folder
    files = {path.stem: json.loads(path.read_text()) for path in (site / "model_info" / "digits").rglob("*.json")}
    assert len(files) == 8
    assert {path.name for path in (site / "model_info" / "digits").iterdir()} == {"Linf", "L2"}
    record = open_run(shown_run).record
    for stem, info in files.items():
        twin, end = "recurrent" if "recurrent" in stem else "feedforward", f":{info['eps']}"
        found = [each for each in record.results or [] if each.classifier.endswith(twin) and each.threat.endswith(end)]
        (result,) = found
        key, other = ("autoattack_acc", "external") if stem.startswith("std") else ("external", "autoattack_acc")
        assert float(info[key]) == pytest.approx(100 * result.robust_correct / 90, abs=0.005)
        assert float(info["clean_acc"]) == pytest.approx(100 * result.clean_correct / 90, abs=0.005)
        assert other not in info
        assert info["dataset"] == "digits"


def test_an_export_is_of_the_form_of_robustbenchs_own_files(shown_run: Path, tmp_path: Path) -> None:
    """What all 188 files of its leaderboards in linf and l2 have, with these types (commit 78fcc9e)."""
    texts = {"link", "name", "authors", "dataset", "venue", "architecture", "eps", "clean_acc", "reported"}
    site = build_site([str(shown_run)], tmp_path / "site").folder
    files = list((site / "model_info").rglob("*.json"))
    assert len(files) == 4
    # Its readers take the text before the first underscore for the model.
    assert len({(path.parent, path.stem.split("_")[0]) for path in files}) == 4
    for path in files:
        info = json.loads(path.read_text())
        assert {key for key, value in info.items() if isinstance(value, str)} >= texts
        assert isinstance(info["number_forward_passes"], int)
        assert isinstance(info["unreliable"], bool)
        assert 0 <= float(info.get("external") or info["autoattack_acc"]) <= float(info["clean_acc"]) <= 100
        assert path.parent.parts[-3:-1] == ("model_info", info["dataset"])


STANDARD = """
schema = 1
name = "published"
seed = 0
threats = ["linf:0.02", "linf:8/255", "l2:0.3"]
battery = ["standard@1", "quick@1"]
diagnose = false
[data]
use = "digits"
count = 12
[[model]]
use = "zoo:digits-fc2-16"
twins = ["feedforward"]
[model.about]
title = "A defence_of <b>ours</b>"
authors = ["A. Author", "B. Author"]
venue = "ICML"
year = 2026
link = "https://example.org/paper"
additional_data = false
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one model with what is known of its paper, attacked by `standard` and then by more."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "recipe.toml").write_text(STANDARD)
    run = evaluate_recipe(folder / "recipe.toml", runs=folder / "runs", device="cpu")
    return build_site([str(run.folder)], folder / "site").folder


def test_a_recipe_says_where_its_model_is_published(published: Path) -> None:
    (path,) = published.glob("model_info/digits/L2/*.json")
    info = json.loads(path.read_text())
    (run,) = (published.parent / "runs").iterdir()
    (result,) = [each for each in open_run(run).results if each.threat == "l2:0.3"]
    standard = result.clean_correct - sum(each.broken for each in result.attacks if each.battery == "standard@1")
    assert float(info["autoattack_acc"]) == pytest.approx(100 * standard / 12, abs=0.005)
    expected = {
        "name": "A defence_of ‹b›ours‹/b›", "authors": "A. Author, B. Author", "venue": "ICML 2026",
        "link": "https://example.org/paper", "additional_data": False, "eps": "0.3", "unreliable": True,
    }  # fmt: skip
    assert expected.items() <= info.items()


def test_each_threat_has_a_folder_of_its_own(published: Path) -> None:
    folder = published / "model_info"
    places = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.json")}
    assert places == {"digits/L2", "0.02/digits/Linf", "8-255/digits/Linf"}


@pytest.mark.parametrize(("models_folder", "norm"), [("model_info", "L2"), ("model_info/8-255", "Linf")])
def test_robustbenchs_own_page_is_made_of_an_export(
    published: Path, monkeypatch: pytest.MonkeyPatch, models_folder: str, norm: str
) -> None:
    template = pytest.importorskip("robustbench.leaderboard.template")
    # It ranks data sets of its own only.
    monkeypatch.setattr(template, "BenchmarkDataset", lambda name: SimpleNamespace(value=name))
    page = template.generate_leaderboard("digits", norm, str(published / models_folder))
    assert page.count("<tr>") == 2
    (path,) = (published / models_folder / "digits" / norm).glob("*.json")
    info = json.loads(path.read_text())
    assert f'<td class="aatd">{info["autoattack_acc"]}%</td>' in page
    # It escapes nothing.
    assert "A defence_of ‹b›ours‹/b›" in page
    assert "<b>" not in page
    assert '<td class="venuetd">ICML 2026</td>' in page
    assert "&#9745;" in page


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('link = "javascript:alert(1)"', "model.1..about.link"),
        ('author = "A"', "unknown key 'author'; did you mean 'authors'"),
        ('authors = "A"', "authors"),
        ("year = 20260", "year"),
    ],
)
def test_what_a_recipe_says_of_a_paper_is_checked(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(STANDARD.partition("[model.about]")[0] + f"[model.about]\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_toml(path, Recipe)


def test_models_of_which_nothing_is_said_ask_what_they_always_did() -> None:
    assert "about" not in ModelSpec(use="zoo:x").model_dump()


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.393, 0.981), [0.4, 0.6, 0.8]),
        ((0.0, 0.1), [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        ((0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ((0.501, 0.533), [0.51, 0.52, 0.53]),
    ],
)
def test_ticks_are_round_numbers(ends: tuple[float, float], ticks: list[float]) -> None:
    assert nice_ticks(*ends) == ticks


def test_the_command_says_where_the_site_is(shown_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    done = CliRunner().invoke(app, ["report", str(shown_run), "--out", str(out)])
    assert done.exit_code == 0
    assert done.stdout == f"{out / 'index.html'}\n"
    assert "1 model, 4 rows" in done.stderr
    refused = CliRunner().invoke(app, ["report", str(shown_run), "--out", str(shown_run)])
    assert isinstance(refused.exception, InputError)
