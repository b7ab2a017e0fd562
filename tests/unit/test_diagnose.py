"""Diagnostics: what each check sees, what it costs, and that nothing else changes by it."""

import hashlib
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import robustframe
from robustframe.attacks import APGD, Attack, Square
from robustframe.data import load
from robustframe.diagnose import Check, Diagnosis
from robustframe.diagnose.case import AttackOutcome, BatteryFindings, Case, Replays
from robustframe.diagnose.question import points
from robustframe.diagnose.run import SHARE, diagnose
from robustframe.diagnose.table import QUESTIONS
from robustframe.evaluation import evaluate_recipe
from robustframe.probe import Probe
from robustframe.runs.record import RECORD, Record
from robustframe.threat import ThreatModel
from robustframe.zoo import load_card

DIGITS = load("digits").first(120)
THREAT = ThreatModel.parse("linf:0.1")


class Linear(nn.Module):
    """A linear classifier of the digits, fitted by ridge regression, around which a test puts a defect."""

    def __init__(
        self, change: Callable[[Tensor], Tensor] = lambda x: x, answer: Callable[[Tensor], Tensor] = lambda z: z
    ):
        super().__init__()
        self.linear, self.change, self.answer = nn.Linear(64, 10, bias=False), change, answer
        flat, hot = DIGITS.images.flatten(1), torch.eye(10)[DIGITS.labels]
        with torch.no_grad():
            self.linear.weight.copy_(torch.linalg.solve(flat.T @ flat + torch.eye(64), flat.T @ hot).T)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.linear(self.change(x.flatten(1))))


def distances() -> Tensor:
    """The exact linf distance of every digit to the boundary, in a space without a box."""
    weight = Linear().linear.weight.detach()
    logits = Linear()(DIGITS.images).detach()
    gaps = logits.gather(1, DIGITS.labels.unsqueeze(1)) - logits
    widths = (weight[DIGITS.labels].unsqueeze(1) - weight).abs().sum(2)
    return torch.where(widths > 0, gaps / widths, torch.inf).amin(1)


def found(robust: Tensor | None = None, *, steps: int = 20, budget: int = 10**6, **more: object) -> BatteryFindings:
    correct = Linear()(DIGITS.images).argmax(1) == DIGITS.labels
    robust = correct & (distances() > THREAT.eps) if robust is None else robust
    entered = int(correct.sum())
    attacks = [
        AttackOutcome(
            "mine@1/01-apgd", APGD(steps=steps, loss="margin"), entered, entered - int(robust.sum()), 0, budget, budget
        ),
        AttackOutcome("mine@1/02-square", Square(queries=10), int(robust.sum()), 0, 0, budget, 0),
    ]
    return replace(BatteryFindings(correct, robust, attacks), **more)


def ask(
    model: nn.Module, battery: BatteryFindings, threat: ThreatModel = THREAT, **more: object
) -> tuple[Diagnosis, dict[str, Check]]:
    said = diagnose(model, DIGITS.images, DIGITS.labels, threat, battery, key=(0, "t"), batch_size=64, **more)
    return said, {check.name: check for check in said.checks}


def failed(model: nn.Module, battery: BatteryFindings | None = None, threat: ThreatModel = THREAT) -> set[str]:
    return {check.name for check in ask(model, battery or found(), threat)[0].checks if check.passed is False}


def test_an_honest_model_under_an_honest_number_is_sound() -> None:
    said, checks = ask(Linear(), found())
    assert said.verdict == "sound"
    assert set(checks) == {question.name for question in QUESTIONS if question.looks_at != "solver"}
    assert all(check.passed and not check.broken for check in said.checks)
    assert (said.reasons, said.examples) == ([], 64)


class Rugged(Linear):
    """Of some images every change of the margin is an accident, as of those that lie next to the boundary."""

    def __init__(self, pixel: int | None) -> None:
        super().__init__()
        self.pixel = pixel

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        # Grey levels are multiples of a sixteenth, and the noise is narrower than half of one.
        some = torch.ones(len(x)) if self.pixel is None else (flat[:, self.pixel] > 8.5 / 16).float()
        logits = self.linear(flat)
        top = logits.max(1, keepdim=True)
        return logits.scatter_add(1, top.indices, (some * torch.sin(1e3 * flat.sum(1)) ** 2).unsqueeze(1))


def test_noise_is_judged_by_the_median_image() -> None:
    shares = (DIGITS.images.flatten(1) > 8.5 / 16).float().mean(0)
    pixel = int((shares - 0.35).abs().argmin())
    assert 0.25 < float(shares[pixel]) < 0.45
    assert ask(Rugged(pixel), found())[1]["unstable-predictions"].passed
    assert ask(Rugged(None), found())[1]["unstable-predictions"].passed is False


def test_the_verdict_is_that_of_the_worst_check() -> None:
    def check(passed: bool | None) -> Check:
        return Check(name="x", figure=None, threshold=0.0, passed=passed, examples=0, sentence="Seen.")

    for answers, verdict in (
        ([True, True], "sound"), ([True, None], "unfinished"), ([None, False, True], "suspicious"), ([], "sound"),
    ):  # fmt: skip
        said = Diagnosis.of([check(answer) for answer in answers], examples=1, forwards=0, backwards=0)
        assert said.verdict == verdict
        assert len(said.reasons) == len([a for a in answers if a is (False if False in answers else None)])


def test_examples_that_a_check_breaks_are_listed_and_lie_within_reach() -> None:
    # The battery is said to have left everything, which is far from true.
    correct = found().correct
    said, checks = ask(Linear(), found(correct))
    assert said.verdict == "suspicious"
    near = set((correct & (distances() <= THREAT.eps)).nonzero().squeeze(1).tolist())
    longer = checks["more-steps-gain"]
    assert longer.passed is False
    assert longer.figure == pytest.approx(len(longer.broken) / longer.examples, rel=1e-3)
    assert set(longer.broken) <= near
    together = checks["broken-by-checks"]
    assert together.broken == sorted(set().union(*(check.broken for check in said.checks)))
    assert together.figure == pytest.approx(len(together.broken) / len(DIGITS), rel=1e-3)


def test_one_example_of_a_sample_is_chance_for_some_checks_and_one_too_many_for_others() -> None:
    # Every survivor is far away but one, which lies just inside.
    robust = found().robust.clone()
    inside = ((distances() < 0.9 * THREAT.eps) & found().correct).nonzero()[0]
    robust[inside] = True
    _, checks = ask(Linear(), found(robust))
    tried = {name: check for name, check in checks.items() if check.broken}
    for check in tried.values():
        assert check.broken == inside.tolist()
    if "more-steps-gain" in tried:
        assert checks["more-steps-gain"].passed


class Turned(torch.autograd.Function):
    """The image as it is, with the gradient of the image mirrored."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return slope.flip(1)


BATCH_MATES = Linear(lambda x: x - 0.5 * x.mean(0, keepdim=True))
NOISE = Linear(answer=lambda z: z + 0.3 * torch.randn_like(z))
ROUNDED = Linear(lambda x: (4 * x).round() / 4)
CUT = Linear(lambda x: x.detach())
LOUD = Linear(answer=lambda z: 1e4 * z)
COARSE = Linear(answer=lambda z: (100 * z).round() / 100)
UPHILL = Linear(lambda x: 2 * x.detach() - x)
WATCHFUL = Linear(lambda x: x.flip(1) if torch.is_grad_enabled() else x)
TURNED = Linear(lambda x: Turned.apply(x))
DYNAMIC = Linear(lambda x: x + 0.0 if float(x.detach().sum()) > 20 else x)


def optimising(x: Tensor) -> Tensor:
    """A purification that takes gradients of its own."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(z.square().sum(), z)
    return x - 1e-3 * slope


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (BATCH_MATES, "batch-dependent"),
        (NOISE, "randomised"),
        (ROUNDED, "unavailable-gradients"),
        (CUT, "unavailable-gradients"),
        (COARSE, "not-logits"),
        (UPHILL, "misleading-gradients"),
        (TURNED, "gradient-no-derivative"),
        (WATCHFUL, "differs-under-gradients"),
        (DYNAMIC, "input-dependent-computation"),
        (Linear(optimising), "input-dependent-computation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_defect_of_a_model_fails_its_check(model: nn.Module, name: str) -> None:
    assert name in failed(model)


@pytest.mark.parametrize("levels", [255, 64, 32])
def test_rounding_with_an_honest_gradient_straight_through_is_its_derivative_on_a_larger_scale(levels: int) -> None:
    straight = Linear(lambda x: x + ((levels * x).round() / levels - x).detach())
    check = ask(straight, found())[1]["gradient-no-derivative"]
    assert check.passed, check.sentence
    assert check.figure is not None
    # As much as kinks explain, and no more, is allowed.
    assert check.figure < check.threshold <= 0.35
    assert ask(Linear(), found())[1]["gradient-no-derivative"].figure == pytest.approx(0, abs=1e-5)


def test_a_battery_that_takes_no_gradient_of_the_model_is_not_asked_whether_it_is_one() -> None:
    battery = found()
    first, *others = battery.attacks
    estimated = replace(first, attack=APGD(steps=20, loss="margin", through="estimate:16"))
    checks = ask(TURNED, replace(battery, attacks=[estimated, *others]))[1]
    assert checks["gradient-no-derivative"].figure is None
    assert "estimate:16" in checks["gradient-no-derivative"].sentence
    assert not [check for check in checks.values() if check.passed is False]


def test_the_survivors_nearest_to_the_boundary_tell_most() -> None:
    # Of those that the battery is said to have left, the nearest half dozen are the ones that fall to a few queries.
    checks = ask(CUT, found(found().correct))[1]
    check = checks["nearest-survivors-fall"]
    assert check.passed is False
    assert check.figure is not None
    sure = (-Linear()(DIGITS.images).detach()).gather(1, DIGITS.labels.unsqueeze(1)).squeeze(1)
    assert len(check.broken) >= 2
    assert sure[check.broken].median() > sure[found().correct].median()
    assert ask(Linear(), found())[1]["nearest-survivors-fall"].figure == 0.0


def test_few_examples_say_too_little() -> None:
    few = DIGITS.first(12)
    battery = found()
    battery = replace(battery, correct=battery.correct[:12], robust=battery.robust[:12])
    said = diagnose(Linear(), few.images, few.labels, THREAT, battery, key=(0, "t"), batch_size=64)
    assert said.verdict == "unfinished"
    assert [check.name for check in said.reasons] == ["enough-examples"]
    assert "at least 20" in said.reasons[0].sentence


def test_a_small_budget_goes_to_the_checks_that_decide_and_the_rest_says_what_would_do() -> None:
    spent = {}
    for budget in (1_000, 2_000, 4_000, 20_000):
        said, _ = ask(Linear(), found(budget=budget))
        spent[budget] = said.verdict
        if said.verdict == "unfinished":
            assert re.search(r"evaluate (about [\d,]+|more) examples", said.reasons[0].sentence)
        elif budget == 4_000:
            # Everything that decides is paid, and not everything else.
            assert [check.name for check in said.checks if check.passed is None and not check.decides]
    assert spent == {1_000: "unfinished", 2_000: "unfinished", 4_000: "sound", 20_000: "sound"}


@pytest.mark.parametrize("model", [WATCHFUL, DYNAMIC], ids=["watchful", "dynamic"])
def test_no_cheap_excuse_saves_a_model_that_is_no_solver(model: nn.Module) -> None:
    battery = found()
    cheap = [replace(battery.attacks[0], attack=APGD(steps=20, loss="margin", through="cheap")), battery.attacks[1]]
    assert failed(model, replace(battery, attacks=cheap)) & {"differs-under-gradients", "input-dependent-computation"}


def test_saturated_logits_hide_from_the_cross_entropy_only() -> None:
    climbs_margin = found()
    first, *others = climbs_margin.attacks
    climbs_ce = replace(climbs_margin, attacks=[replace(first, attack=APGD()), *others])
    assert {"not-logits", "unavailable-gradients"} <= failed(LOUD, climbs_ce)
    assert not failed(LOUD, climbs_margin)


def test_a_battery_that_is_made_for_random_models_is_not_blamed_for_them() -> None:
    quiet = Linear(answer=lambda z: z + 1e-2 * torch.randn_like(z))
    made = found(votes=5)
    first, *others = made.attacks
    made = replace(made, attacks=[replace(first, attack=APGD(steps=20, loss="margin", eot=4)), *others])
    check = ask(quiet, made)[1]["randomised"]
    assert (check.figure, check.passed) == (1.0, True)
    assert "no doubt" in check.sentence
    assert "randomised" in failed(quiet)


def test_attacks_without_gradients_that_win_are_read_off_the_record() -> None:
    battery = found()
    won = [battery.attacks[0], replace(battery.attacks[1], broken=12)]
    check = ask(Linear(), replace(battery, attacks=won))[1]["black-box-beats-gradients"]
    assert (check.passed, check.figure) == (False, pytest.approx(12 / 120))
    # Three of a hundred may be chance where one point is lost; of a thousand thirty are not.
    some = [battery.attacks[0], replace(battery.attacks[1], broken=3)]
    assert ask(Linear(), replace(battery, attacks=some))[1]["black-box-beats-gradients"].passed
    assert [round(points(count) * count) for count in (20, 100, 1000, 10_000)] == [1, 3, 20, 200]
    # Before the gradients had their turn, it says nothing.
    early = [replace(battery.attacks[1], broken=12), battery.attacks[0]]
    assert ask(Linear(), replace(battery, attacks=early))[1]["black-box-beats-gradients"].passed


def test_claims_that_were_not_verified_are_counted() -> None:
    battery = found()
    assert "claimed-unverified" in failed(
        Linear(), replace(battery, attacks=[replace(battery.attacks[0], unverified=30), battery.attacks[1]])
    )


def test_images_of_other_classifiers_and_of_smaller_balls_are_replayed() -> None:
    battery = found(found().correct)
    index = ((distances() < 0.5 * THREAT.eps) & battery.correct).nonzero().squeeze(1)[:10]
    attacked = APGD(steps=20, loss="margin").run(
        Linear(), DIGITS.images[index], DIGITS.labels[index], THREAT, robustframe.draws.Draws((0,), len(index))
    )
    fallen = index[attacked.success]
    assert len(fallen) >= 3
    images = attacked.adversarial[attacked.success]
    stored = Replays(images, DIGITS.images[fallen], DIGITS.labels[fallen], fallen)
    check = ask(Linear(), replace(battery, others=stored))[1]["transfer-beats-attack"]
    assert (check.broken, check.passed) == (fallen.tolist(), len(fallen) / 120 <= points(120))
    # What lies outside the ball, or is classified correctly, does not count.
    for harmless in (images + 0.2, DIGITS.images[fallen]):
        check = ask(Linear(), replace(battery, others=replace(stored, images=harmless)))[1]["transfer-beats-attack"]
        assert (check.broken, check.figure) == ([], 0.0)
    check = ask(Linear(), replace(battery, smaller=fallen.tolist()))[1]["not-monotone"]
    assert (check.passed, check.broken) == (False, fallen.tolist())


def test_a_check_that_fails_leaves_the_row_incomplete_and_the_others_asked() -> None:
    class Pairs(Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) < 2:
                raise RuntimeError("one image is none")
            return super().forward(x)

    said, checks = ask(Pairs(), found())
    assert said.verdict == "unfinished"
    assert [check.name for check in said.reasons] == ["input-dependent-computation"]
    assert "one image is none" in checks["input-dependent-computation"].sentence


@pytest.mark.parametrize("budget", [0, 1_000, 10_000, 30_000, 100_000])
@pytest.mark.parametrize("model", [Linear(), CUT, NOISE], ids=["honest", "cut", "random"])
def test_all_checks_together_stay_within_the_budget_whatever_it_is(model: nn.Module, budget: int) -> None:
    battery = found(found().correct, budget=budget)
    said, _ = ask(model, battery)
    assert said.forwards + said.backwards <= SHARE * battery.passes
    if budget == 0:
        assert said.verdict == "unfinished"
    if budget == 100_000:
        assert not [check for check in said.checks if check.passed is None]


def test_a_number_that_is_next_to_nothing_cannot_be_much_too_high() -> None:
    battery = found(torch.zeros_like(found().robust), budget=2_000)
    said, checks = ask(Linear(), battery)
    assert said.verdict == "sound"
    assert "nothing at stake" in checks["more-steps-gain"].sentence


def test_the_model_and_the_random_state_are_left_as_they_were() -> None:
    model, battery = Linear().train(), found()
    state = torch.get_rng_state()
    model.linear.weight.grad = torch.ones_like(model.linear.weight)
    ask(model, battery)
    assert model.training
    assert model.linear.weight.requires_grad
    assert torch.equal(model.linear.weight.grad, torch.ones_like(model.linear.weight))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("threat", ["l2:0.5", "l1:2", "linf:0.1", "l0:4"])
def test_every_norm_is_checked(threat: str) -> None:
    said, checks = ask(Linear(), found(found().correct), ThreatModel.parse(threat))
    assert not [check for check in said.checks if check.passed is None]
    # Where no step is the steepest, nothing is asked that climbs along gradients.
    assert ("more-steps-gain" in checks) == (not threat.startswith("l0"))


def claim_the_negatives(probe: Probe) -> None:
    """Write into a probe's memory that the negative of each image, far outside the ball, was a success."""
    probe.best = 1 - probe.x
    probe.succeeded[:] = True


class Cheating(Attack):
    def perturb(self, probe: Probe, x: Tensor, threat: ThreatModel, draws: robustframe.draws.Draws) -> None:
        claim_the_negatives(probe)


def test_a_check_breaks_no_example_outside_its_ball() -> None:
    model = Linear()
    wrong = model(1 - DIGITS.images).argmax(1) != DIGITS.labels
    rows = (found().robust & wrong).nonzero().squeeze(1)
    assert len(rows) > 10
    x, y = DIGITS.images[rows], DIGITS.labels[rows]
    case = Case(model, THREAT, found(), x, y, rows, len(rows), x, y, (0,), 64)
    result = case.attack("cheating", Cheating())
    assert result.claimed.all()
    assert not result.success.any()
    with case.probing("cheating") as probe:
        claim_the_negatives(probe)
    assert not case.spent.breaks
    assert case.spent.forwards == 2 * len(rows)
    # In a ball that holds the negatives they count, but not as breaks in the row's own.
    assert case.attack("cheating", Cheating(), threat=replace(THREAT, eps=1.0)).success.all()
    assert not case.spent.breaks
    case.threat = replace(THREAT, eps=1.0)
    with case.probing("cheating") as probe:
        claim_the_negatives(probe)
    assert case.spent.breaks == set(rows.tolist())


RECIPE = """
schema = 1
name = "checked"
seed = 3
chunk = 60
threats = ["linf:0.05", "linf:0.06"]
battery = ["quick@1"]
{more}
[data]
use = "digits"
count = 150

[[model]]
use = "card:{card}"
"""


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def recipe(tiny_card: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(card=tiny_card, more=""))
    return path


@pytest.mark.slow
def test_a_realistic_run_is_checked_for_a_tenth_of_its_cost_whatever_the_batch_size_or_a_kill(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")
    folder = run.folder
    assert len(run.results) == 4
    for result in run.results:
        cost = sum(entry.forwards + entry.backwards for entry in result.attacks)
        diagnosis = result.diagnosis
        assert diagnosis is not None
        assert diagnosis.verdict == "sound", diagnosis.reasons
        assert 0 < diagnosis.forwards + diagnosis.backwards <= SHARE * cost
    before = contents(folder)
    small = evaluate_recipe(recipe, out=tmp_path / "small", device="cpu", batch_size=7)
    assert contents(small.folder) == before

    # Killed while the second row is checked, and one file of the checks cut short.
    files = sorted(folder.rglob("diagnosis.json"))
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:40])
    for file in files[1:]:
        file.unlink()
    begun = run.record.model_copy(
        update={"status": "started", "results": None, "verdicts_sha256": None, "evidence_sha256": None, "flags": []}
    )
    (folder / RECORD).write_text(begun.to_json())
    calls = []
    real = robustframe.evaluation.diagnosis.diagnose

    def killed(*args: object, **more: object) -> Diagnosis:
        calls.append(1)
        if len(calls) == 2:
            # By a signal, as somebody's Ctrl-C is; what code inside an evaluation raises by itself stops nothing.
            signal.raise_signal(signal.SIGINT)
        return real(*args, **more)

    monkeypatch.setattr(robustframe.evaluation.diagnosis, "diagnose", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_recipe(recipe, out=folder, device="cpu")
    monkeypatch.undo()
    evaluate_recipe(recipe, out=folder, device="cpu")
    assert contents(folder) == before

    # Without the checks: another evaluation, with the same verdicts.
    recipe.write_text(recipe.read_text().replace("[data]", "diagnose = false\n[data]", 1))
    bare = evaluate_recipe(recipe, out=tmp_path / "bare", device="cpu")
    assert bare.record.hash != run.record.hash
    assert [result.diagnosis for result in bare.results] == [None] * 4
    assert bare.verdicts.equals(run.verdicts)


def test_a_recipe_that_says_what_is_the_default_is_the_same_evaluation(recipe: Path) -> None:
    from robustframe.evaluation import load_task

    device = torch.device("cpu")
    silent = load_task(recipe, device=device)
    recipe.write_text(recipe.read_text().replace("[data]", "diagnose = true\n[data]", 1))
    said = load_task(recipe, device=device)
    recipe.write_text(recipe.read_text().replace("diagnose = true", "diagnose = false"))
    off = load_task(recipe, device=device)
    assert silent.hash == said.hash != off.hash == said.undiagnosed().hash
    assert (silent.recipe["diagnose"], off.recipe["diagnose"]) == (True, False)
    assert (silent.diagnose, off.diagnose) == (True, False)


def test_a_diagnosis_survives_its_file() -> None:
    run = robustframe.evaluate(Linear(), DIGITS.images, DIGITS.labels, threat="linf:0.05", battery="quick")
    assert run.results[0].diagnosis is not None
    assert Record.model_validate_json((run.folder / RECORD).read_text()) == run.record


def test_a_suspicious_row_is_flagged_with_the_check_and_what_to_do() -> None:
    run = robustframe.evaluate(ROUNDED, DIGITS.images, DIGITS.labels, threat="linf:0.05", battery="quick")
    flags = [flag for flag in run.record.flags if "suspicious (unavailable-gradients)" in flag]
    assert len(flags) == 1
    assert "bpda" in flags[0]


def test_solvers_are_asked_whether_they_have_converged(tiny_card: Path) -> None:
    pair = load_card(tiny_card)[0]
    correct = pair.recurrent(DIGITS.images).argmax(1) == DIGITS.labels
    battery = replace(found(), correct=correct, robust=correct)
    names = {check.name for check in ask(pair.recurrent, battery)[0].checks}
    assert {"solver-not-converged", "breaks-by-stopping"} <= names
    names = {check.name for check in ask(pair.feedforward, battery)[0].checks}
    assert not {"solver-not-converged", "breaks-by-stopping"} & names
