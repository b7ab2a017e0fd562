"""Targets: which class an example is to be taken for, and what a run makes of that."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

import robustframe
from robustframe.attacks import FGSM
from robustframe.certify import Smoothed
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.losses import margin, targeted_margin
from robustframe.probe import Probe
from robustframe.recipe import parse_threats, spread_threats
from robustframe.runs import open_run
from robustframe.runs.curve import security_curves
from robustframe.targets import choose_targets, parse_targets
from robustframe.threat import ThreatModel
from robustframe.verification.matrix import transfer_matrix
from robustframe.zoo import load_card

LABELS = torch.tensor([0, 3, 4])
LOGITS = torch.tensor([[5.0, 1.0, -2.0, 0.0, 3.0], [1.0, 2.0, 3.0, -9.0, 0.0], [0.0, float("nan"), 1.0, 2.0, 9.0]])
X = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("rule", "targets"), [("next", [1, 4, 0]), ("+3", [3, 1, 2]), ("+4", [4, 2, 3]), ("least-likely", [2, 4, 0])]
)
def test_rules_choose_other_classes(rule: str, targets: list[int]) -> None:
    assert choose_targets(rule, X, LABELS, LOGITS).tolist() == targets


def test_random_targets_belong_to_the_image_and_the_seed() -> None:
    x = torch.rand((200, 2, 3), generator=torch.Generator().manual_seed(1))
    labels = torch.arange(200) % 5
    logits = torch.zeros(200, 5)
    found = choose_targets("random", x, labels, logits)
    assert (found != labels).all()
    assert torch.equal(found[7:9], choose_targets("random", x[7:9], labels[7:9], logits[7:9]))
    assert not torch.equal(found, choose_targets("random-1", x, labels, logits))
    steps = torch.bincount((found - labels) % 5, minlength=5)
    assert steps[0] == 0
    assert steps[1:].min() >= 30


def test_a_rule_is_kept_in_one_spelling() -> None:
    assert [parse_targets(text) for text in ("+1", "random-0", "+12", "all")] == ["next", "random", "+12", "all"]
    one, other = (ThreatModel.parse(f"linf:0.1 to {text}") for text in ("next", "+1"))
    assert one.same_as(other)
    assert not one.same_as(ThreatModel.parse("linf:0.1"))
    assert ThreatModel(norm="linf", eps=8 / 255, targets="random").words == "linf:8/255 to random"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("linf:0.1 to nxt", "did you mean 'next'"),
        ("linf:0.1 to +0", "unknown rule for targets '+0'"),
        ("linf:0.1 to 3", "unknown rule for targets '3'"),
    ],
)
def test_other_rules_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match="unknown rule for targets") as caught:
        ThreatModel.parse(text)
    assert says in str(caught.value).replace("mean next", "mean 'next'")


def test_all_is_a_threat_for_each_other_class() -> None:
    threats = parse_threats(["l2:1", "linf:0.1 to all"])
    spread = [each.label for each in spread_threats(threats, 4)]
    assert spread == ["l2:1", "linf:0.1 to next", "linf:0.1 to +2", "linf:0.1 to +3"]
    with pytest.raises(InputError, match="does not say how many classes"):
        spread_threats(threats, 0)
    with pytest.raises(InputError, match="a threat appears twice"):
        spread_threats(parse_threats(["linf:0.1 to all", "linf:0.1 to +2"]), 4)


class Rotated(nn.Module):
    """Sees where on a circle of six classes the mean of two pixels lies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(6) * (2 * torch.pi / 6)
        return 10 * (x.flatten(1) - 0.5) @ torch.stack([angle.cos(), angle.sin()])


def circle(count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.arange(count) * (2 * torch.pi / count) + 0.1
    x = 0.5 + 0.2 * torch.stack([angle.cos(), angle.sin()], 1).view(-1, 1, 1, 2)
    return x, Rotated()(x).argmax(1)


def test_targets_can_be_given() -> None:
    x, y = circle()
    targets = (y + 3) % 6
    found = robustframe.attack(Rotated(), x, y, "apgd", "l2:0.6", targets=targets)
    assert found.success.all()
    assert torch.equal(found.prediction, targets)
    near = robustframe.attack(Rotated(), x, y, "apgd", "l2:0.15", targets=targets.numpy())
    # Any wrong class would be within reach.
    assert not near.success.any()
    assert robustframe.attack(Rotated(), x, y, "apgd", "l2:0.15").success.any()


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ([0] * 24, "the target of example 0 is its own label, 0"),
        ([7, 1], "targets must be 24 class numbers"),
        ([0.5] * 24, "class numbers"),
        ([-1] * 24, "the target -1 is no class"),
        ("next", "targets is str"),
        (["a"] * 24, "targets is list"),
        ([6] * 24, "the model has 6 classes, but the targets go up to 6"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets: object, says: str) -> None:
    x, y = circle()
    with pytest.raises(InputError) as caught:
        robustframe.attack(Rotated(), x, y, "apgd", "l2:0.6", targets=targets)
    assert says in str(caught.value)


def test_offsets_and_all_that_the_model_cannot_have_are_refused() -> None:
    x, y = circle()
    with pytest.raises(InputError, match=r"more than a way round 6 classes; at most '\+5'"):
        robustframe.attack(Rotated(), x, y, "apgd", "l2:0.6 to +6")
    with pytest.raises(InputError, match=r"more than a way round 6 classes; at most '\+5'"):
        robustframe.evaluate(Rotated(), x, y, threat="l2:0.6 to +6", battery="quick")
    with pytest.raises(InputError, match="stand for one threat for each"):
        robustframe.attack(Rotated(), x, y, "apgd", "l2:0.6 to all")


@pytest.mark.parametrize(
    ("threat", "battery", "says"),
    [
        ("linf:0.1 to next", "torchattacks", "is not run with targets"),
        ("linf:0.1 to least-likely", "rand", "another one each time; aim at 'next' or 'random'"),
    ],
)
def test_batteries_that_cannot_aim_are_refused_before_anything_runs(threat: str, battery: str, says: str) -> None:
    pytest.importorskip("torchattacks")
    x, y = circle()
    with pytest.raises(InputError) as caught:
        robustframe.evaluate(Rotated(), x, y, threat=threat, battery=battery)
    assert says in str(caught.value)


@pytest.fixture(scope="module")
def aimed(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny pair under untargeted and targeted threats of one size."""
    folder = tmp_path_factory.mktemp("aimed")
    (folder / "shown.toml").write_text(
        'schema = 1\nname = "shown"\nversion = "0.1"\n[[attack]]\nuse = "apgd"\nsteps = 8\nloss = "margin"\n'
    )
    (folder / "recipe.toml").write_text(
        'schema = 1\nname = "aimed"\nseed = 3\nchunk = 40\nbattery = ["shown.toml"]\n'
        'threats = ["l2:1.2", "l2:0.8 to next", "l2:1.2 to next", "l2:1.2 to least-likely", "l2:1.2 to random"]\n'
        f'[data]\nuse = "digits"\ncount = 40\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    return robustframe.evaluate_recipe(folder / "recipe.toml", runs=folder / "runs", device="cpu").folder


def test_a_run_breaks_an_example_where_it_is_taken_for_its_target(aimed: Path) -> None:
    run = open_run(aimed)
    broken = run.verdicts.filter(pl.col("broken_by").is_not_null())
    taken = broken.filter(pl.col("threat").str.ends_with("to next"))
    assert len(taken) > 8
    assert ((taken["label"] + 1) % 10 == taken["adversarial_prediction"]).all()
    left = {(each.classifier, each.threat): each.robust_correct for each in run.results}
    for classifier in {each.classifier for each in run.results}:
        assert left[classifier, "l2:1.2"] <= left[classifier, "l2:1.2 to next"] <= left[classifier, "l2:0.8 to next"]
        assert left[classifier, "l2:1.2 to next"] < left[classifier, "l2:1.2 to least-likely"]
    assert "l2:1.2 to least-likely" in run.table()


def test_a_wrong_class_that_is_no_target_breaks_nothing(aimed: Path) -> None:
    """Images of the untargeted threat lie in the same ball, and those of the other twin under its own targets."""
    for result in open_run(aimed).results:
        assert result.diagnosis is not None
        found = {check.name: check for check in result.diagnosis.checks}
        assert found["not-monotone"].passed, found["not-monotone"]
        if result.threat == "l2:1.2 to least-likely":
            assert not found["transfer-beats-attack"].broken, found["transfer-beats-attack"]


def test_images_carry_over_where_the_other_takes_them_for_its_target(aimed: Path, tiny_card: Path) -> None:
    run, pair = open_run(aimed), load_card(tiny_card)[0]
    twins = {"feedforward": pair.feedforward, "recurrent": pair.recurrent}
    digits = load("digits", "test").first(40)
    cells = [each for each in transfer_matrix(run, folder=aimed.parent.parent).cells if each.threat == "l2:1.2 to next"]
    assert len(cells) == 2
    for cell in cells:
        found, model = run.adversarial(cell.source, cell.threat), twins[cell.target.rpartition("/")[2]]
        clean, labels = digits.images[found.broken], digits.labels[found.broken]
        right = model(clean).argmax(1) == labels
        taken = model(found.images).argmax(1)
        assert cell.broken == int((right & (taken == (labels + 1) % 10)).sum())
        # Any wrong class would be more.
        assert cell.broken <= int((right & (taken != labels)).sum())


def test_a_loss_that_aims_sets_the_target_against_the_best_other_class() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.1, 0.0], [0.0, 0.2], [1.0, 1.0]]))
    x = torch.full((1, 1, 1, 2), 0.5)
    probe = Probe(model, x, torch.tensor([0]), ThreatModel.parse("l2:0.1"), targets=torch.tensor([1]))
    with probe.looking():
        seen = probe.gradient(x, targeted_margin, torch.tensor([1]))
        plain = probe.gradient(x, margin)
    # Class 2 is above the label, class 0.
    assert torch.allclose(seen.gradient.flatten(), torch.tensor([-1.0, -0.8]))
    assert torch.allclose(seen.value, probe.height(model(x)))
    assert torch.allclose(plain.gradient, seen.gradient)


def test_a_curve_is_of_one_goal(aimed: Path) -> None:
    run = open_run(aimed)
    curves = security_curves(run.record, run.verdicts)
    kinds = [each.kind for each in curves if each.classifier == curves[0].classifier]
    assert kinds == ["l2", "l2 to next", "l2 to least-likely", "l2 to random"]
    assert curves[1].asked == (0.8, 1.2)


def test_such_a_run_verifies_and_another_target_shows(aimed: Path, tmp_path: Path) -> None:
    found = robustframe.verify(aimed)
    assert found.ok, str(found)
    copy = tmp_path / "copy"
    shutil.copytree(aimed, copy)
    # The unit under "next" claims a break by the class after the next.
    path, rows = next(
        (path, rows)
        for path in sorted(copy.glob("units/*/l2_1.2_to_next/*apgd/*.parquet"))
        if (rows := pl.read_parquet(path))["success"].any()
    )
    at = int(rows["success"].arg_max())
    taken = (int(rows["prediction"][at]) + 1) % 10
    rows.with_columns(
        pl.when(pl.int_range(pl.len()) == at).then(taken).otherwise("prediction").alias("prediction")
    ).write_parquet(path)
    told = [
        each.differs for check in robustframe.verify(copy, folder=aimed.parent.parent).checks for each in check.findings
    ]
    assert f"l2:1.2 to next: its target is {taken - 1 if taken else 9}, the table says it was taken for {taken}" in told


def test_all_from_python() -> None:
    x, y = circle()
    run = robustframe.evaluate(Rotated(), x, y, threat="l2:0.15 to all", battery="quick", diagnose=False)
    assert [each.threat for each in run.results] == [f"l2:0.15 to {rule}" for rule in ("next", "+2", "+3", "+4", "+5")]
    counts = [each.robust_correct for each in run.results]
    # The circle is symmetric: neighbours fall first, the opposite side last.
    assert counts[0] == counts[4] < counts[1] == counts[3] <= counts[2] == 24, counts
    assert [each.kind for each in run.curves()] == [f"l2 to {rule}" for rule in ("next", "+2", "+3", "+4", "+5")]


def test_the_least_likely_class_of_a_random_model_is_refused() -> None:
    x, y = circle()
    noisy = Smoothed(Rotated(), 0.1, draws=2)
    with pytest.raises(InputError, match="draws random numbers, so that its least likely class is another one"):
        robustframe.evaluate(noisy, x, y, threat="l2:0.1 to least-likely", battery=FGSM(), diagnose=False)


def test_all_is_of_every_class_of_the_model() -> None:
    x, y = circle()
    few = y < 2
    run = robustframe.evaluate(Rotated(), x[few], y[few], threat="l2:0.15 to all", battery=FGSM(), diagnose=False)
    assert [each.threat.partition(" to ")[2] for each in run.results] == ["next", "+2", "+3", "+4", "+5"]
