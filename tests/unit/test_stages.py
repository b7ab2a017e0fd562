"""What batteries can ask of the engine: norms, names, votes, the closest success; what is left out or flagged."""

from pathlib import Path

import pytest
import torch
from torch import nn

import robustframe
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.evaluation import evaluate_recipe, load_task
from robustframe.recipe import batteries, load_battery
from robustframe.recipe.stages import make_stages
from robustframe.runs.run import Run

DIGITS = load("digits").first(60)


def battery(folder: Path, body: str, *, name: str = "mine", head: str = "") -> str:
    path = folder / f"{name}.toml"
    path.write_text(f'schema = 1\nname = "{name}"\nversion = "1"\n{head}\n{body}')
    return str(path)


class Linear(nn.Module):
    """A linear classifier of the digits, fitted by ridge regression."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        flat, hot = DIGITS.images.flatten(1), torch.eye(10)[DIGITS.labels]
        with torch.no_grad():
            self.linear.weight.copy_(torch.linalg.solve(flat.T @ flat + torch.eye(64), flat.T @ hot).T)
            self.linear.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


def evaluate(model: nn.Module, named: str | list[str], threat: str | list[str] = "linf:0.1", **options: object) -> Run:
    return robustframe.evaluate(model, DIGITS.images, DIGITS.labels, threat=threat, battery=named, **options)


@pytest.mark.parametrize("found", list(batteries()), ids=lambda found: found.cited)
def test_every_shipped_battery_is_of_attacks_that_exist_and_says_what_it_is_for(found) -> None:
    stages = make_stages([found], Path())
    assert len(stages) == len(found.attack)
    assert len(found.about) > 20
    for stage in stages:
        assert set(stage.spec.norms or stage.attack.norms) <= set(stage.attack.norms)


def test_the_standard_battery_has_autoattacks_settings_in_every_norm() -> None:
    stages = make_stages([load_battery("standard@1")], Path())
    of = {
        norm: [
            (stage.spec.name or stage.spec.use, stage.attack)
            for stage in stages
            if stage.spec.norms is None or norm in stage.spec.norms
        ]
        for norm in ("linf", "l2", "l1")
    }
    for norm, attacks in of.items():
        assert [name for name, _ in attacks] == ["apgd-ce", "apgd-t", "fab-t", "square"]
        ce, targeted, fab, square = (attack for _, attack in attacks)
        assert (ce.loss, ce.steps, ce.restarts) == ("cross_entropy", 100, 5 if norm == "l1" else 1)
        assert (targeted.targets, targeted.steps, targeted.restarts) == (5 if norm == "l1" else 9, 100, 1)
        assert (fab.targets, fab.steps, fab.restarts) == (9, 100, 1)
        assert (square.queries, square.restarts, square.resc_schedule) == (5000, 1, False)


def test_the_recurrent_battery_holds_the_standard_one_with_the_same_random_numbers() -> None:
    standard, recurrent = (make_stages([load_battery(name)], Path()) for name in ("standard@1", "recurrent@1"))
    assert {stage.key for stage in standard} <= {stage.key for stage in recurrent}
    assert len({stage.key for stage in recurrent}) == len(recurrent)


def test_an_attack_meets_the_same_numbers_in_every_battery_and_others_when_it_comes_again(tmp_path: Path) -> None:
    once = battery(tmp_path, '[[attack]]\nuse = "apgd"\nsteps = 5\n', name="once")
    twice = battery(
        tmp_path,
        '[[attack]]\nuse = "square"\nqueries = 3\n[[attack]]\nuse = "apgd"\nname = "again"\nsteps = 5\n'
        '[[attack]]\nuse = "apgd"\nsteps = 5\nloss = "cross_entropy"\n',
        name="twice",
    )
    (first,) = make_stages([load_battery(once)], Path())
    _, second, third = make_stages([load_battery(twice)], Path())
    # The default loss, spelt out, is the same attack; a name is no setting.
    assert first.key == second.key
    assert third.key != first.key


def test_an_attack_is_run_for_its_norms_only(tmp_path: Path) -> None:
    body = '[[attack]]\nuse = "fgsm"\nnorms = ["l2"]\n[[attack]]\nuse = "pgd"\nsteps = 3\nnorms = ["linf"]\n'
    run = evaluate(Linear(), battery(tmp_path, body), ["linf:0.1", "l2:0.5"])
    assert [[entry.use for entry in result.attacks] for result in run.results] == [["pgd"], ["fgsm"]]
    with pytest.raises(InputError, match=r"no attack of mine@1 is run for l1:2; add another battery"):
        evaluate(Linear(), str(tmp_path / "mine.toml"), "l1:2")


def test_verdicts_call_an_attack_by_its_name(tmp_path: Path) -> None:
    body = '[[attack]]\nuse = "apgd"\nname = "apgd-margin"\nsteps = 5\nloss = "margin"\n'
    run = evaluate(Linear(), battery(tmp_path, body))
    (entry,) = run.results[0].attacks
    assert (entry.use, entry.name, entry.broken > 0) == ("apgd", "apgd-margin", True)
    assert "mine@1/01-apgd-margin" in run.verdicts["broken_by"].to_list()


def test_the_closest_success_is_kept_and_every_example_meets_every_attack(tmp_path: Path) -> None:
    attacks = '[[attack]]\nuse = "square"\nqueries = 30\n[[attack]]\nuse = "pgd"\nsteps = 20\n'
    first = evaluate(Linear(), battery(tmp_path, attacks, name="plain"), "l2:2")
    second = evaluate(Linear(), battery(tmp_path, attacks, name="near", head="closest = true"), "l2:2")
    one, two = (result for run in (first, second) for result in run.results)
    assert [entry.entered for entry in two.attacks] == [two.clean_correct] * 2
    assert one.robust_correct == two.robust_correct == 0
    far, near = first.verdicts, second.verdicts
    assert (near["distance"] <= far["distance"] + 1e-9).all()
    assert near["distance"].mean() < 0.95 * far["distance"].mean()
    # The stored example is the one of the verdict, and it is no farther than the nearest boundary allows.
    model = Linear()
    weight = model.linear.weight.detach()
    logits = model(DIGITS.images).detach()
    rows = torch.arange(60)
    gaps = logits[rows, DIGITS.labels].unsqueeze(1) - logits
    lengths = (weight[DIGITS.labels].unsqueeze(1) - weight).norm(dim=2)
    exact = torch.where(lengths > 0, gaps / lengths, torch.inf).amin(1)
    right = torch.from_numpy(near["clean_correct"].to_numpy().copy())
    found = torch.from_numpy(near["distance"].fill_null(0).to_numpy().copy())
    assert (found[right] >= exact[right] - 1e-5).all()


class Noisy(Linear):
    """The linear classifier on noisy images: sometimes wrong on any image, seldom most of the time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.15 * torch.randn_like(x))


def test_votes_decide_on_models_that_draw_random_numbers(tmp_path: Path) -> None:
    attack = '[[attack]]\nuse = "apgd"\nsteps = 5\n'
    single = evaluate(Noisy(), battery(tmp_path, attack, name="single"), "linf:0.01")
    voted = evaluate(Noisy(), battery(tmp_path, attack, name="voted", head="votes = 15"), "linf:0.01")
    assert any("answers the same images differently" in flag for flag in single.record.flags)
    before, after = (run.results[0] for run in (single, voted))
    # Every draw that was unlucky once counts against the model without votes.
    assert after.robust_correct > before.robust_correct
    assert after.clean_correct >= before.clean_correct


def test_gradients_of_solvers_are_left_out_for_other_models_with_the_reason(tmp_path: Path, tiny_card: Path) -> None:
    body = (
        '[[attack]]\nuse = "apgd"\nsteps = 4\nthrough = "iterates"\n[[attack]]\nuse = "apgd"\nsteps = 4\n'
        '[[attack]]\nuse = "apgd"\nsteps = 4\nthrough = "cheap"\n'
    )
    battery(tmp_path, body)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'schema = 1\nname = "solvers"\nseed = 0\nthreats = ["linf:0.1"]\nbattery = ["mine.toml"]\n'
        f'[data]\nuse = "digits"\ncount = 40\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    moments = []
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu", report=moments.append)
    feedforward, recurrent = run.results
    assert [entry.skipped is None for entry in recurrent.attacks] == [True] * 3
    assert [entry.skipped is None for entry in feedforward.attacks] == [False, True, True]
    assert "makes one sweep only" in str(feedforward.attacks[0].skipped)
    assert feedforward.attacks[0].entered == 0
    assert moments[-1].done == moments[-1].units


class Blind(Linear):
    """The linear classifier behind a step without gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((16 * x).round() / 16)


class Cut(Linear):
    """The linear classifier with a detached input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.detach())


class Unstable(Linear):
    """The linear classifier with a gradient that is infinite at black pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.sqrt().square())


def test_zero_missing_and_infinite_gradients_are_flagged_and_the_other_attacks_go_on(tmp_path: Path) -> None:
    body = '[[attack]]\nuse = "apgd"\nsteps = 3\n[[attack]]\nuse = "square"\nqueries = 60\n'
    named = battery(tmp_path, body)
    for model, sentence in (
        (Blind(), "apgd met no gradient but zero on"),
        (Cut(), "gives no gradient"),
        (Unstable(), "apgd met gradients with NaN or infinity on"),
    ):
        run = evaluate(model, named, "linf:0.3")
        assert any(sentence in flag for flag in run.record.flags), run.record.flags
        second = run.results[0].attacks[1]
        assert second.broken > 0 or second.entered == 0
    assert evaluate(Cut(), named, "linf:0.3").results[0].attacks[1].broken > 0
    assert not [flag for flag in evaluate(Linear(), named).record.flags if "gradient" in flag]


class Untrainable(torch.autograd.Function):
    """A step whose backward pass fails."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *slopes):
        raise RuntimeError("no backward here")


class Failing(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(Untrainable.apply(x))


def test_models_and_radii_that_cannot_be_evaluated_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="backward pass fails: no backward here"):
        evaluate(Failing(), "quick")
    with pytest.raises(InputError, match="the model returned one number per image"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), "quick")
    for threat, size in (("l2:8.1", "8"), ("l1:65", "64")):
        with pytest.raises(InputError, match=f"eps is above {size}, the size of the whole box"):
            evaluate(Linear(), "standard", threat)
    with pytest.raises(InputError, match="wider than the whole box"):
        evaluate(Linear(), "quick", "linf:1.1")
    with pytest.raises(InputError, match="above 0"):
        evaluate(Linear(), "quick", "linf:0")


def test_another_content_of_a_users_file_is_another_evaluation(tmp_path: Path, tiny_card: Path) -> None:
    battery(tmp_path, '[[attack]]\nuse = "apgd"\nsteps = 3\nloss = "file:mine.py:loss"\n')
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'schema = 1\nname = "own"\nseed = 0\nthreats = ["linf:0.1"]\nbattery = ["mine.toml"]\n'
        f'[data]\nuse = "digits"\ncount = 20\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    code = "def loss(logits, labels):\n    return {}logits.gather(1, labels.unsqueeze(1)).squeeze(1)\n"
    hashes = []
    for sign in ("-", "+", "-"):
        (tmp_path / "mine.py").write_text(code.format(sign))
        hashes.append(load_task(recipe, device=torch.device("cpu")).hash)
    assert hashes[0] == hashes[2] != hashes[1]
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")
    assert run.results[0].attacks[0].settings["loss"] == "file:mine.py:loss"
