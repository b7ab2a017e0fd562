"""Copies that are searched in a model's place: equal to rounding, refused with a sentence, never believed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Basic
from test_evaluation import contents
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import robustframe
from robustframe.attacks import make_attack
from robustframe.calls import borrowed, call_in_batches
from robustframe.draws import Draws
from robustframe.evaluation import evaluate_recipe
from robustframe.prepared import Preparation, Searched, choose, searched
from robustframe.prepared.agreement import ask, differs, probes
from robustframe.runs.record import RECORD, read_record
from robustframe.threat import ThreatModel
from robustframe.zoo import load_card

FOLDED, LAST = "batch norm folded", "channels last"
THREAT = ThreatModel(norm="linf", eps=0.1)


def images(rows: int = 12, seed: int = 0, shape: tuple[int, ...] = (2, 8, 8)) -> Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(seed))


def odd(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics that none would have after an ordinary training."""
    drawn = torch.Generator().manual_seed(seed)
    for each in model.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            size = each.num_features
            each.running_mean = torch.randn(size, generator=drawn) * 3
            each.running_var = 10 ** (4 * torch.rand(size, generator=drawn) - 2)
            each.running_var[0] = 0.0
            if each.affine:
                each.weight.data = torch.randn(size, generator=drawn)
                each.weight.data[-1] = 0.0
                each.bias.data = torch.randn(size, generator=drawn)
    return model


class Residual(nn.Module):
    """Two blocks of a ResNet and a head; ``wide`` enough for bfloat16."""

    def __init__(self, channels: int = 2, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Basic(channels, width, 2), Basic(width, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 2:
            raise ValueError("two channels")
        return self.head(self.blocks(x).mean((2, 3)).view(len(x), -1))


def residual(seed: int = 0, width: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual(width=width).eval()


def sequence(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (residual, (2, 8, 8)),
    "no-affine": (sequence(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, affine=False), nn.ReLU()), (2, 8, 8)),
    "grouped": (sequence(nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6, eps=1e-2)), (2, 8, 8)),
    "linear": (sequence(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.ReLU()), (12,)),
    "sequence": (sequence(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU()), (2, 9)),
    "volume": (sequence(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), nn.ReLU()), (2, 4, 4, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_folding_adds_no_more_than_rounding_whatever_the_statistics(name: str, seed: int) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(seed)
    model, x = build().eval(), images(20, seed, shape)
    model(x)
    model = odd(model, seed)
    chosen = choose(model, x)
    assert FOLDED in chosen.steps
    made = searched(model, x, chosen).model
    left = [each for each in made.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert not left
    with torch.no_grad():
        exactly = copy.deepcopy(model).double()(x.double())
        errors = [float((each(x).double() - exactly).abs().max()) for each in (model, made)]
    assert errors[1] <= 8 * errors[0] + 1e-6 * float(exactly.abs().max())


def test_a_batch_norm_that_others_look_past_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
            self.statistics = nn.BatchNorm2d(3, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (self.norm(y) + y).mean((2, 3))

    class Along(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.linear(x.flatten(1, 2))).mean(2)

    assert choose(odd(Both()), images()).steps == [LAST]
    assert choose(odd(Along()), images()).steps == []


def changed(model: nn.Module, change: Callable[[Any], Any]) -> nn.Module:
    change(model)
    return model


class Repeating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x)).mean((2, 3))


class Dropping(Repeating):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.conv(x)).mean((2, 3))


class Uncopied(Residual):
    def __deepcopy__(self, memo: dict[int, Any]) -> "Uncopied":
        return self


class Uncopyable(Residual):
    def __deepcopy__(self, memo: dict[int, Any]) -> "Uncopyable":
        raise RuntimeError(f"there is only one of me, {object()}")


class Telling(Residual):
    """Says something else once its batch norms are gone."""

    def forward(self, x: Tensor) -> Tensor:
        gone = not any(isinstance(each, nn.BatchNorm2d) for each in self.modules())
        last = not self.blocks[0].conv1.weight.is_contiguous()
        return super().forward(x) + (gone + last) * torch.tensor([1.0, 0.0, 0.0])


class Looking(Residual):
    """Reads what a folded batch norm no longer has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.blocks[0].bn1.eps


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def hooked(kind: str) -> Callable[[nn.Module], nn.Module]:
    return lambda model: changed(model, lambda each: getattr(each.head, kind)(lambda *_: None))


def traced() -> nn.Module:
    with pytest.warns(FutureWarning, match="deprecated"):
        return torch.jit.trace(nn.Sequential(nn.Conv2d(2, 3, 8), nn.Flatten()), images())  # type: ignore[no-any-return]


def patched() -> nn.Module:
    model = residual()
    forward = model.forward
    model.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]
    return model


def function() -> nn.Module:
    model = residual()
    return robustframe.adapt(lambda x: model(x))


class Failing(Residual):
    """Fails when it is asked for the second time."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise ZeroDivisionError("a bug")
        return super().forward(x)


def leaving() -> nn.Module:
    class Leaving(Residual):
        def __deepcopy__(self, memo: dict[int, Any]) -> "Leaving":
            raise SystemExit(3)

    return Leaving()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "hook": (lambda: hooked("register_forward_hook")(residual()), "head (Linear) has hooks"),
    "pre-hook": (lambda: hooked("register_forward_pre_hook")(residual()), "head (Linear) has hooks"),
    "backward-hook": (lambda: hooked("register_full_backward_hook")(residual()), "head (Linear) has hooks"),
    "spectral-norm": (
        lambda: changed(residual(), lambda each: parametrizations.weight_norm(each.head)),
        "head (ParametrizedLinear) has parametrizations",
    ),
    "shared": (Repeating, "it calls conv more than once"),
    "random": (Dropping, "it answers the same images differently each time"),
    "script": (traced, "it (TopLevelTracedModule) is a compiled program"),
    "graph": (
        lambda: nn.Sequential(torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(2, 3, 8), nn.Flatten()))),
        "0 (Sequential) is a compiled program",
    ),
    "double": (lambda: residual().double(), "it has weights of float64"),
    "one-object": (lambda: odd(Uncopied()), "a copy of it fails: it calls layers of the model itself"),
    "no-copy": (lambda: odd(Uncopyable()), "a copy of it fails: there is only one of me, <object object at 0x...>"),
    "function": (
        function,
        "a copy of it fails: it calls layers of the model itself",
    ),
    "patched": (patched, "a copy of it fails: it calls layers of the model itself"),
    "telling": (Telling, "a copy of it has other logits in float32"),
    "leaving": (leaving, "a copy of it fails: it raised what ends a process"),
    "nothing": (Plain, "nothing in it can be made faster"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_copied_is_searched_as_it_is_and_says_why(kind: str) -> None:
    build, sentence = REFUSED[kind]
    torch.manual_seed(0)
    model = build().eval()
    chosen = choose(model, images(), bfloat16=True)
    assert chosen.steps == []
    assert chosen.why_not is not None
    assert chosen.why_not.startswith(sentence)
    made = searched(model, images(), chosen, bfloat16=True)
    assert made.model is model
    x = images()
    with borrowed(model), torch.no_grad():
        y = call_in_batches(model, x, 16).argmax(1)
    run = robustframe.evaluate(
        model, x, torch.clamp(y, max=1), battery=[{"use": "fgsm"}], diagnose=False, report=robustframe.silent
    )
    assert run.record.searched is not None
    assert run.record.searched["model"].steps == []


def test_a_model_that_fails_now_and_then_is_searched_as_it_is() -> None:
    assert choose(Failing(), images()) == Preparation(why_not="it fails: a bug")


def test_twins_are_searched_as_they_are(tiny_card: Path) -> None:
    pair = load_card(tiny_card)[0]
    chosen = choose(pair.recurrent, images(shape=(1, 8, 8)))
    assert chosen == Preparation(why_not="it is a solver, whose sweeps share their products as they are")


def test_steps_that_a_model_does_not_take_are_left_out() -> None:
    flat = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), Viewed(), nn.Linear(4 * 36, 3))
    assert choose(odd(flat.eval()), images()).steps == [FOLDED]
    # What is asked of a batch norm is gone with it.
    assert choose(Looking().eval(), images()).why_not == "a copy of it fails: 'Identity' object has no attribute 'eps'"


class Viewed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


def test_the_model_is_given_back_as_it_was() -> None:
    model = odd(residual()).train()
    model.blocks[0].conv1.weight.requires_grad_(False)
    before, parts = copy.deepcopy(model.state_dict()), [id(each) for each in [*model.modules(), *model.parameters()]]
    strides = [each.stride() for each in model.parameters()]
    made = searched(model, images(), choose(model, images(), bfloat16=True), bfloat16=True).model
    assert made is not model
    assert [id(each) for each in [*model.modules(), *model.parameters()]] == parts
    assert [each.stride() for each in model.parameters()] == strides
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(each.training and not each._forward_hooks for each in model.modules())
    assert [each.requires_grad for each in model.parameters()] == [False] + [True] * (len(strides) - 1)
    assert not any(each.requires_grad for each in made.parameters())


def test_the_choice_is_the_same_every_time() -> None:
    model = odd(residual(width=16))
    assert choose(model, images(), bfloat16=True) == choose(copy.deepcopy(model), images(), bfloat16=True)


def test_bfloat16_is_for_wide_layers_and_close_answers() -> None:
    narrow, wide = (
        choose(residual(width=8), images(), bfloat16=True),
        choose(residual(width=48), images(), bfloat16=True),
    )
    assert not narrow.bfloat16
    assert narrow.why_not_bfloat16 == "most of its layers have too few channels for bfloat16 to be faster"
    assert wide.bfloat16
    assert wide.why_not_bfloat16 is None
    # Where logits are small differences of large numbers, they are not there.
    loud = changed(residual(width=48), lambda each: each.head.bias.data.add_(1e4))
    assert "has other logits in bfloat16" in str(choose(loud, images(), bfloat16=True).why_not_bfloat16)


def test_a_copy_with_other_gradients_is_told_from_its_model() -> None:
    class Detached(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x.detach()) + 0 * x.sum()

    model = residual()
    few = probes(images(), 0.0, 1.0)
    with borrowed(model):
        assert differs(ask(model, few), model, few) is None
        assert differs(ask(model, few), Detached(model), few) == "has other gradients in float32"


class Liar(nn.Module):
    """Answers as a model does, but moves the logits of one class by a distance."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + self.by * torch.tensor([1.0, 0.0, 0.0])


ATTACKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pgd", {"steps": 5}),
    ("apgd", {"steps": 5}),
    ("apgd-t", {"steps": 4, "targets": 2, "together": 2}),
    ("fab-t", {"steps": 4, "targets": 2}),
    ("square", {"queries": 20}),
    ("hopskipjump", {"steps": 2}),
    ("torchattacks:PGD", {"steps": 3}),
    ("universal", {"steps": 3}),
    ("apgd", {"steps": 4, "precision": "bfloat16"}),
    ("apgd", {"steps": 3, "through": "estimate:2"}),
)


@pytest.mark.parametrize("by", [0.0, 100.0, -100.0])
@pytest.mark.parametrize(("use", "settings"), ATTACKS, ids=str)
def test_a_copy_that_lies_makes_no_success(use: str, settings: dict[str, Any], by: float) -> None:
    model, x = odd(residual()), images(10)
    y = model(x).argmax(1)
    found = make_attack(use, settings).run(
        model, x, y, THREAT, Draws((0,), 10), search=Searched(Liar(model, by)), known_correct=True, batch_size=16
    )
    wrong = model(found.adversarial).argmax(1) != y
    assert torch.equal(found.success, wrong & found.success)
    assert torch.equal(found.claimed, found.success)
    assert bool(THREAT.contains(x, found.adversarial).all())
    if by == 0.0:
        honest = make_attack(use, settings).run(model, x, y, THREAT, Draws((0,), 10), known_correct=True, batch_size=16)
        assert torch.equal(found.success, honest.success)
        assert torch.equal(found.adversarial, honest.adversarial)
        # Each success is confirmed once more.
        extra = found.forwards - honest.forwards
        assert bool((extra >= found.success.long()).all())
        assert torch.equal(found.backwards, honest.backwards)


def test_what_is_wrong_without_an_attack_is_asked_of_the_model_itself() -> None:
    model, x = odd(residual()), images(10)
    y = (model(x).argmax(1) + 1) % 3
    right = Liar(model, 0.0)
    right.forward = lambda x: F.one_hot(y[:1].expand(len(x)), 3).float()  # type: ignore[method-assign]
    found = make_attack("fgsm", {}).run(model, x, y, THREAT, Draws((0,), 10), search=Searched(right))
    assert bool(found.success.all())
    assert not found.distance.any()


def test_gradients_of_parts_are_of_the_model_itself() -> None:
    class Asked(Liar):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the copy was asked")

    model, x = odd(residual()), images(4)
    y = model(x).argmax(1)
    for settings in ({"bpda": {"blocks.0.relu": "identity"}}, {"through": lambda model: model}):
        attack = make_attack("pgd", {"steps": 2, **settings})
        attack.run(model, x, y, THREAT, Draws((0,), 4), search=Searched(Asked(model, 0.0)))


MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv2d(1, 16, 1), nn.Conv2d(16, 32, 3, bias=False)
        self.bn, self.head = nn.BatchNorm2d(32), nn.Linear(32 * 36, 3)

    def forward(self, x):
        return self.head(self.bn(self.conv(self.first(x))).relu().flatten(1))


def net():
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = Net()
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.1, 2)
        # So that no class is far ahead on every image.
        model.head.bias.data -= model.eval()(torch.full((1, 1, 8, 8), 0.5))[0].detach()
        return model
"""
RECIPE = """
schema = 1
name = "prepared"
seed = 1
chunk = 20
threats = ["linf:0.05"]
battery = ["mine.toml"]

[data]
use = "file:data.npz"

[[model]]
use = "file:model.py:net"
"""
BATTERY = """
schema = 1
name = "mine"
version = "1"
precision = "bfloat16"

[[attack]]
use = "apgd"
steps = 6

[[attack]]
use = "square"
queries = 20
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("model.py", MODEL), ("recipe.toml", RECIPE), ("mine.toml", BATTERY)):
        (tmp_path / name).write_text(text)
    made: dict[str, Any] = {}
    exec(MODEL, made)
    x = images(30, shape=(1, 8, 8))
    with torch.no_grad():
        y = made["net"]()(x).argmax(1)
    np.savez(tmp_path / "data.npz", images=x.numpy(), labels=y.numpy())
    return tmp_path / "recipe.toml"


def test_batch_size_isolation_and_resume_change_no_byte_with_preparation_on(recipe: Path) -> None:
    whole = evaluate_recipe(recipe, out=recipe.parent / "whole", device="cpu")
    record, bytes_ = whole.record, contents(whole.folder)
    (chosen,) = (record.searched or {}).values()
    assert chosen.steps == [FOLDED, LAST]
    assert chosen.bfloat16
    assert 0 < whole.results[0].robust_correct < 30
    smaller = evaluate_recipe(recipe, out=recipe.parent / "smaller", device="cpu", batch_size=7)
    assert contents(smaller.folder) == bytes_
    isolated = evaluate_recipe(recipe, out=recipe.parent / "isolated", device="cpu", isolate=True)
    # In a process of its own nobody reads a network as a frame; all else is the same.
    assert isolated.record.evidence_sha256 == record.evidence_sha256
    assert isolated.record.searched == record.searched

    def stop(progress: Any) -> None:
        if progress.done >= 3:
            raise ArithmeticError("stop")

    with pytest.raises(ArithmeticError, match="stop"):
        evaluate_recipe(recipe, out=recipe.parent / "stopped", device="cpu", report=stop)
    assert read_record(recipe.parent / "stopped")[0].status == "started"
    assert contents(evaluate_recipe(recipe, out=recipe.parent / "stopped", device="cpu").folder) == bytes_
    code, folder = [recipe.parent / "model.py"], recipe.parent
    assert robustframe.verify(whole.folder, device="cpu", folder=folder, code=code).ok
    edited = json.loads((whole.folder / RECORD).read_text())
    edited["searched"]["another"] = {"steps": []}
    (whole.folder / RECORD).write_text(json.dumps(edited))
    said = str(robustframe.verify(whole.folder, device="cpu", folder=folder, code=code))
    assert "it says what was searched in place of another, which is not one of its classifiers" in " ".join(
        said.split()
    )


def test_a_continued_run_is_searched_as_it_was_begun(recipe: Path) -> None:
    def stop(progress: Any) -> None:
        raise ArithmeticError("stop")

    folder = recipe.parent / "run"
    for kept in ({"steps": [FOLDED]}, None):
        with pytest.raises(ArithmeticError, match="stop"):
            evaluate_recipe(recipe, out=folder, device="cpu", report=stop)
        begun = json.loads((folder / RECORD).read_text())
        (name,) = begun["searched"]
        begun["searched"] = None if kept is None else {name: kept}
        (folder / RECORD).write_text(json.dumps({key: value for key, value in begun.items() if value is not None}))
        ended = evaluate_recipe(recipe, out=folder, device="cpu").record.searched
        assert ended == (None if kept is None else {name: Preparation.model_validate(kept)})
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


def test_verdicts_are_the_same_with_and_without(recipe: Path) -> None:
    (recipe.parent / "mine.toml").write_text(BATTERY.replace('precision = "bfloat16"\n', ""))
    prepared = evaluate_recipe(recipe, out=recipe.parent / "prepared", device="cpu")
    recipe.write_text(RECIPE.replace("chunk = 20", 'chunk = 20\nprepare = "none"'))
    plain = evaluate_recipe(recipe, out=recipe.parent / "plain", device="cpu")
    assert plain.record.searched is None
    assert plain.record.recipe["prepare"] == "none"
    assert "prepare" not in prepared.record.recipe
    assert "searched" not in json.loads((plain.folder / RECORD).read_text())
    keep = ["index", "clean_prediction", "clean_correct", "robust", "broken_by"]
    assert prepared.verdicts.select(keep).equals(plain.verdicts.select(keep))
    for one, other in zip(prepared.results, plain.results, strict=True):
        assert one.model_copy(update={"attacks": [], "diagnosis": None}) == other.model_copy(
            update={"attacks": [], "diagnosis": None}
        )
        assert [(each.entered, each.broken, each.unverified) for each in one.attacks] == [
            (each.entered, each.broken, each.unverified) for each in other.attacks
        ]
