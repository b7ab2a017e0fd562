"""Every piece of the museum is what it says it is, and a handful is caught for the right reason or not accused."""

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import tour
from exhibits import BROKEN, HONEST, Exhibit, Honest, nets
from exhibits.backward import fixed
from torch import Tensor, nn

from robustframe.calls import forked_random
from robustframe.diagnose.table import QUESTIONS
from robustframe.pairs import Pair

IMAGES = 8
WAYS = 12


@pytest.fixture
def hardly_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train nets on a few images only: what a piece does to its net hangs on no accuracy."""
    monkeypatch.setattr(nets, "PRACTICE", 640)
    monkeypatch.setattr(nets, "KEPT", _HARDLY)


_HARDLY: dict[tuple[str, str], nn.Module] = {}


@pytest.fixture(autouse=True)
def drawn() -> Iterator[None]:
    """Random models draw the same numbers in every run, and nobody else's."""
    with forked_random(0):
        yield


def points(data: str = "fashion-mnist") -> Tensor:
    """Images at which nothing has a kink: no pixel is equal to its neighbour, black or white."""
    images = nets.shown(data).images[:IMAGES].double()
    return 0.1 + 0.8 * images + 0.01 * fixed(*images.shape).double().clamp(-3, 3)


def ways(x: Tensor) -> Tensor:
    """Directions of unit length, smooth ones and rough ones, shape (ways, *image)."""
    rough = fixed(WAYS, *x.shape[1:]).double()
    coarse = F.interpolate(fixed(WAYS, x.shape[1], 4, 4, seed=1).double(), size=x.shape[2:], mode="bilinear")
    both = torch.where(torch.arange(WAYS).view(-1, 1, 1, 1) % 2 == 0, rough, coarse)
    return F.normalize(both.flatten(1), dim=1).view_as(both)


def gap(logits: Tensor, top: Tensor) -> Tensor:
    """The lead of the class at first over the second, as both were at first."""
    return (logits * (F.one_hot(top[:, 0], logits.shape[1]) - F.one_hot(top[:, 1], logits.shape[1]))).sum(1)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    """The gradient of the lead as autograd gives it; zero where there is none."""
    with torch.no_grad():
        top = model(x).topk(2, 1).indices
    leaf = x.clone().requires_grad_()
    lead = gap(model(leaf), top).sum()
    if not lead.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(lead, leaf, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


@torch.no_grad()
def slopes(model: nn.Module, x: Tensor, step: float) -> Tensor:
    """Slopes along all ways by central differences, shape (images, ways)."""
    top = model(x).topk(2, 1).indices
    found = [(gap(model(x + step * way), top) - gap(model(x - step * way), top)) / (2 * step) for way in ways(x)]
    return torch.stack(found, 1)


def likeness(model: nn.Module, x: Tensor, step: float) -> float:
    """The median cosine, over images, between slopes by autograd and by differences: along smooth or rough ways."""
    said, seen = gradient(model, x).flatten(1) @ ways(x).flatten(1).T, slopes(model, x, step or 1e-6)
    return min(float(F.cosine_similarity(said[:, at::2], seen[:, at::2], dim=1).median()) for at in (0, 1))


def exact(piece: Exhibit | Honest) -> nn.Module:
    return copy.deepcopy(piece.build()).double().eval()


def names(piece: Exhibit | Honest) -> str:
    return piece.name


def test_there_are_enough_of_both_and_each_has_a_name_of_its_own() -> None:
    assert len(BROKEN) >= 40
    assert len(HONEST) >= 40
    every = [piece.name for piece in (*BROKEN, *HONEST)]
    assert len(set(every)) == len(every)


def test_every_reason_is_a_check_and_every_cure_a_battery() -> None:
    known = {question.name for question in QUESTIONS}
    for exhibit in BROKEN:
        assert exhibit.checks, exhibit.name
        assert set(exhibit.checks) <= known, exhibit.name
        assert not exhibit.cure or "@" in exhibit.cure or (tour.HERE / exhibit.cure).is_file(), exhibit.name


@pytest.mark.usefixtures("hardly_trained")
@pytest.mark.parametrize("exhibit", BROKEN, ids=names)
def test_an_exhibit_answers_as_it_says(exhibit: Exhibit) -> None:
    x = nets.shown().images[:IMAGES]
    with torch.no_grad():
        said, plain = exhibit.build()(x), exhibit.undefended()(x)
    assert said.shape[0] == IMAGES
    assert said.shape[1] in (10, 11)
    assert said.isfinite().all()
    if exhibit.answers == "same":
        assert torch.equal(said, plain)
    elif exhibit.answers == "other":
        assert said.shape != plain.shape or not torch.equal(said, plain)


@pytest.mark.usefixtures("hardly_trained")
@pytest.mark.parametrize("exhibit", BROKEN, ids=names)
def test_the_gradient_of_an_exhibit_is_what_it_says(exhibit: Exhibit) -> None:
    model, x = exact(exhibit), points()
    if exhibit.gradient == "noisy":
        first = gradient(model, x)
        assert not all(torch.equal(first, gradient(model, x)) for _ in range(4))
        return
    for _ in range(60 if exhibit.kind == "stateful" else 0):
        model(x)
    slope = gradient(model, x).flatten(1)
    if exhibit.gradient == "none":
        without = (slope == 0).all(1) | ~slope.isfinite().all(1)
        assert without.double().mean() >= 0.25
    elif exhibit.gradient == "wrong":
        assert likeness(model, x, 1e-6) < 0.95
    elif exhibit.answers != "random":
        assert likeness(model, x, 1e-6) > 0.99


@pytest.mark.usefixtures("hardly_trained")
@pytest.mark.parametrize("model", HONEST, ids=names)
def test_an_honest_model_answers_and_differentiates_as_it_should(model: Honest) -> None:
    built, x = exact(model), points(model.data)
    for twin in (built.feedforward, built.recurrent) if isinstance(built, Pair) else (built,):
        said = twin(x)
        assert said.shape == (IMAGES, 2 if model.data == "two-classes" else 10)
        assert torch.equal(said, twin(x))
        assert likeness(twin, x, model.step) > (0.95 if model.step else 0.999)


@pytest.mark.usefixtures("hardly_trained")
@pytest.mark.parametrize("build", [nets.net, nets.other, nets.linear], ids=lambda build: build.__name__)
def test_a_net_is_trained_once_and_comes_out_the_same(build: nets.Build, monkeypatch: pytest.MonkeyPatch) -> None:
    first, x = build(), nets.shown().images[:IMAGES]
    assert build() is first
    monkeypatch.setattr(nets, "KEPT", {})
    again = build()
    assert again is not first
    assert torch.equal(again(x), first(x))


def test_no_net_is_trained_on_what_is_attacked() -> None:
    attacked = {image.numpy().tobytes() for image in nets.shown(count=200).images}
    assert not attacked & {image.numpy().tobytes() for image in nets.practice()[0]}


def seen(name: str, **changes: Any) -> tour.Seen:
    """What a walk could have seen."""
    row = tour.Seen(name, name, "quick@1", "linf:0.1", 0.8, 0.5, "sound", (), 0.05, 1.0)
    return dataclasses.replace(row, **changes)


@pytest.fixture
def notes(tmp_path: Path) -> tour.Notes:
    return tour.Notes(tmp_path / "notes.jsonl")


def test_a_walk_that_was_made_is_not_made_again(notes: tour.Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, made = next(tour.walks(BROKEN[:1], ["quick@1"])), []
    monkeypatch.setattr(tour.Walk, "see", lambda self: made.append(self.name) or [seen(self.name)])
    assert notes.go(walk) == notes.go(walk) == tour.Notes(notes.file).go(walk) == [seen(walk.name)]
    assert made == [walk.name]


@pytest.mark.parametrize(
    ("row", "faults"),
    [
        ({"verdict": "sound"}, 1),
        ({"verdict": "suspicious", "checks": ("misleading-gradients",)}, 0),
        ({"verdict": "suspicious", "checks": ("not-monotone",)}, 1),
        ({"verdict": "sound", "robust": 0.22}, 0),
    ],
)
def test_what_is_inflated_must_be_caught_for_the_right_reason(
    notes: tour.Notes, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], faults: int
) -> None:
    exhibit = next(each for each in BROKEN if each.name == "linear-gradient")
    plain = tour.undefended(exhibit)
    told = {exhibit.name: seen(exhibit.name, **row), plain.name: seen(plain.name, battery=plain.battery, robust=0.18)}
    monkeypatch.setattr(tour.Walk, "see", lambda self: [told[self.name]])
    for walk in (next(tour.walks([exhibit], ["quick@1"])), plain):
        notes.go(walk)
    assert len(tour.wrong(notes)) == faults


def test_an_honest_model_must_not_be_suspicious(notes: tour.Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = seen(HONEST[0].name, verdict="suspicious", threat=HONEST[0].threat)
    monkeypatch.setattr(tour.Walk, "see", lambda self: [alarm])
    notes.go(next(tour.walks(HONEST[:1], ["quick@1"])))
    assert len(tour.wrong(notes)) == 1
    assert "| quick@1 | 0 of" in tour.page(notes)


def test_the_page_shows_the_pieces_that_there_are() -> None:
    there = [(piece.name, piece.threat) for piece in (*BROKEN, *HONEST)]
    assert tour.shown(tour.PAGE.read_text(encoding="utf-8")) == there, "stale: run `make museum`"


def test_the_page_of_checks_is_current() -> None:
    text = tour.CHECKS.read_text(encoding="utf-8")
    assert "<!-- checks -->" in text
    assert tour.fill(text) == text, "stale: run `make museum`"


CAUGHT = ("flipped-sign", "detached", "rounding-inside", "early-exit", "dropout")
SOUND = ("linear", "adversarially-trained", "tanh")


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUGHT)
def test_a_broken_defence_is_caught_for_the_right_reason(name: str) -> None:
    exhibit = next(each for each in BROKEN if each.name == name)
    (row,) = next(tour.walks([exhibit], ["quick@1"])).see()
    assert tour.right(exhibit, row), row
    assert row.share <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_no_honest_model_is_suspicious(name: str) -> None:
    model = next(each for each in HONEST if each.name == name)
    for row in next(tour.walks([model], ["quick@1"])).see():
        assert not row.suspicious, row
        assert row.share <= 0.1
