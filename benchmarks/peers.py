"""Our attacks and those of other libraries behind one call: a problem in, adversarial images out.

For `benchmarks/attacks.py`; by itself this file runs nothing. Every library is used through its public interface as its
documentation says, 250 images a call where it leaves batches to the caller.
"""

import importlib
import importlib.util
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import robustframe
from robustframe.attacks import APGD, APGDT, FABT, PGD, Attack, Square
from robustframe.calls import DEFAULT_BATCH, borrowed, call_in_batches, predict
from robustframe.draws import Draws
from robustframe.threat import ThreatModel

BATCH = 250
DISTRIBUTIONS = {
    "pyautoattack": "pyautoattack",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
    "adv_lib": "adv-lib",
}
"""The package that each peer is imported as, and what it is installed as."""
NAMES = {**DISTRIBUTIONS, "art": "ART"}
"""What the page calls them."""
_NEEDED = {
    "pyautoattack": ("pyautoattack",),
    "torchattacks": ("torchattacks",),
    "foolbox": ("foolbox",),
    "art": ("art.attacks.evasion", "art.estimators.classification"),
    "adv_lib": ("adv_lib.attacks",),
}


@dataclass(frozen=True)
class Effort:
    """How far attacks go; the defaults are AutoAttack's standard version and a PGD of 40 steps."""

    steps: int = 100
    targets: int = 9
    queries: int = 5000
    pgd_steps: int = 40


FULL, LITTLE = Effort(), Effort(steps=4, targets=2, queries=8, pgd_steps=3)


@dataclass(frozen=True)
class Problem:
    """What everybody is given."""

    model: nn.Module
    """In evaluation mode, on the device of the images; its parameters as they are loaded, so not frozen."""
    x: Tensor
    y: Tensor
    threat: ThreatModel
    """An linf ball."""
    seed: int
    effort: Effort = FULL


Contestant = Callable[[Problem], Tensor]
"""Makes adversarial images, shape (n, ...), in the order of the examples."""


@dataclass(frozen=True)
class Peer:
    """One attack of another library."""

    package: str
    attack: str
    run: Contestant

    @property
    def label(self) -> str:
        """How the page calls it."""
        return f"{NAMES[self.package]} {self.attack}"


def load_peers() -> tuple[dict[str, str], dict[str, str]]:
    """Import every peer.

    Returns:
        The versions of those that import, and of the others why they do not.
    """
    if importlib.util.find_spec("visdom") is None:
        # adv-lib imports it for plots that its attacks only make when they are given a logger.
        sys.modules["visdom"] = types.ModuleType("visdom")
    versions, missing = {}, {}
    for package, modules in _NEEDED.items():
        try:
            for module in modules:
                importlib.import_module(module)
            versions[package] = version(DISTRIBUTIONS[package])
        except ImportError as error:
            missing[package] = str(error)
    return versions, missing


def count_robust(problem: Problem, adversarial: Tensor) -> tuple[int, int]:
    """Judge anybody's images on the exact model: the only source of robust accuracies here.

    Returns:
        How many examples are robust: correct on the clean image, and on the adversarial one unless that is outside
        ball or box; and how many images are outside.
    """
    x, y = problem.x, problem.y
    adversarial = adversarial.detach().to(x.device, x.dtype)
    with borrowed(problem.model) as model, torch.no_grad():
        right = predict(call_in_batches(model, x, DEFAULT_BATCH)) == y
        fooled = predict(call_in_batches(model, adversarial, DEFAULT_BATCH)) != y
    allowed = problem.threat.contains(x, adversarial)
    return int((right & ~(fooled & allowed)).sum()), int((~allowed).sum())


def battery(name: str) -> Contestant:
    """Our `robustframe.evaluate` with a battery: its checks, its files and its verification are part of the time."""

    def run(problem: Problem) -> Tensor:
        adversarial = problem.x.clone()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            asked = name
            if name == "standard@1" and problem.effort != FULL:
                asked = str(folder / "little.toml")
                Path(asked).write_text(_little_standard(problem.effort), encoding="utf-8")
            evaluated = robustframe.evaluate(
                problem.model, problem.x, problem.y,
                threat=problem.threat.label, battery=asked, seed=problem.seed, chunk=BATCH, out=folder / "run",
            )  # fmt: skip
            images, broken = evaluated.adversarial()
            if broken.any():
                adversarial[broken.to(adversarial.device)] = images.to(adversarial)
        return adversarial

    return run


def _little_standard(effort: Effort) -> str:
    attacks: list[dict[str, object]] = [
        {"use": "apgd", "loss": "cross_entropy", "steps": effort.steps},
        {"use": "apgd-t", "targets": effort.targets, "steps": effort.steps, "together": effort.targets},
        {"use": "fab-t", "targets": effort.targets, "steps": effort.steps},
        {"use": "square", "queries": effort.queries},
    ]
    lines = ["schema = 1", 'name = "little"', 'version = "1"', 'about = "A trial of the benchmark itself."']
    for attack in attacks:
        lines += ["[[attack]]", *(f"{key} = {value!r}" for key, value in attack.items())]
    return "\n".join(lines)


def single(make: Callable[[Effort], Attack]) -> Contestant:
    """One of our attacks through `Attack.run`, which verifies what it found."""

    def run(problem: Problem) -> Tensor:
        draws = Draws((problem.seed,), len(problem.x), device=problem.x.device)
        return make(problem.effort).run(problem.model, problem.x, problem.y, problem.threat, draws).adversarial

    return run


OUR_APGD_CE = single(lambda effort: APGD(loss="cross_entropy", steps=effort.steps))
OUR_APGD_T = single(lambda effort: APGDT(targets=effort.targets, steps=effort.steps, together=effort.targets))
OUR_FAB_T = single(lambda effort: FABT(targets=effort.targets, steps=effort.steps))
OUR_SQUARE = single(lambda effort: Square(queries=effort.queries))
OUR_PGD = single(lambda effort: PGD(steps=effort.pgd_steps, step_size=0.1))


def autoattack(only: Sequence[str] = ()) -> Contestant:
    """AutoAttack's standard version, or some of its attacks with the standard version's settings."""

    def run(problem: Problem) -> Tensor:
        from pyautoattack import AutoAttack

        adversary = AutoAttack(
            problem.model, norm="Linf", eps=problem.threat.eps, version="standard",
            device=problem.x.device, seed=problem.seed,
        )  # fmt: skip
        if only:
            adversary.attacks_to_run = list(only)
        if problem.effort != FULL:
            for attack in (adversary.apgd, adversary.apgd_targeted, adversary.fab):
                attack.n_iter, attack.n_target_classes = problem.effort.steps, problem.effort.targets
            adversary.square.n_queries = problem.effort.queries
        images: Tensor = adversary.run_standard_evaluation(problem.x, problem.y, batch_size=BATCH)[0]
        return images

    return run


def _batched(attack: Callable[[Tensor, Tensor], Any], problem: Problem) -> Tensor:
    parts = zip(problem.x.split(BATCH), problem.y.split(BATCH))
    return torch.cat([attack(x, y) for x, y in parts])


def torchattacks_apgd(problem: Problem) -> Tensor:
    import torchattacks

    attack = torchattacks.APGD(
        problem.model, norm="Linf", eps=problem.threat.eps, steps=problem.effort.steps, loss="ce", seed=problem.seed
    )
    return _batched(attack, problem)


def torchattacks_pgd(problem: Problem) -> Tensor:
    import torchattacks

    eps = problem.threat.eps
    return _batched(torchattacks.PGD(problem.model, eps=eps, alpha=0.1 * eps, steps=problem.effort.pgd_steps), problem)


def advlib_apgd(problem: Problem) -> Tensor:
    from adv_lib.attacks import apgd

    def attack(x: Tensor, y: Tensor) -> Any:
        effort = problem.effort
        return apgd(problem.model, x, y, problem.threat.eps, float("inf"), n_iter=effort.steps, loss_function="ce")

    return _batched(attack, problem)


def advlib_pgd(problem: Problem) -> Tensor:
    from adv_lib.attacks import pgd_linf

    def attack(x: Tensor, y: Tensor) -> Any:
        return pgd_linf(problem.model, x, y, problem.threat.eps, steps=problem.effort.pgd_steps, relative_step_size=0.1)

    return _batched(attack, problem)


def foolbox_pgd(problem: Problem) -> Tensor:
    import foolbox

    model = foolbox.PyTorchModel(problem.model, bounds=(0, 1), device=problem.x.device)
    pgd = foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=problem.effort.pgd_steps, random_start=True)
    return _batched(lambda x, y: pgd(model, x, y, epsilons=problem.threat.eps)[1], problem)


def _art_classifier(problem: Problem) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=problem.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(problem.x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if problem.x.is_cuda else "cpu",
    )


def art_apgd(problem: Problem) -> Tensor:
    from art.attacks.evasion import AutoProjectedGradientDescent

    eps = problem.threat.eps
    attack = AutoProjectedGradientDescent(
        _art_classifier(problem), norm="inf", eps=eps, eps_step=2 * eps, max_iter=problem.effort.steps,
        nb_random_init=1, batch_size=BATCH, loss_type="cross_entropy", verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(x=problem.x.cpu().numpy(), y=problem.y.cpu().numpy()))


def art_pgd(problem: Problem) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    eps = problem.threat.eps
    attack = ProjectedGradientDescentPyTorch(
        _art_classifier(problem), norm="inf", eps=eps, eps_step=0.1 * eps, max_iter=problem.effort.pgd_steps,
        num_random_init=1, batch_size=BATCH, verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(x=problem.x.cpu().numpy(), y=problem.y.cpu().numpy()))


STANDARD_PEER = Peer("pyautoattack", "standard", autoattack())
APGD_PEERS = (
    Peer("pyautoattack", "APGD-CE", autoattack(["apgd-ce"])),
    Peer("torchattacks", "APGD", torchattacks_apgd),
    Peer("adv_lib", "apgd", advlib_apgd),
    Peer("art", "AutoProjectedGradientDescent", art_apgd),
)
PGD_PEERS = (
    Peer("torchattacks", "PGD", torchattacks_pgd),
    Peer("foolbox", "LinfPGD", foolbox_pgd),
    Peer("adv_lib", "pgd_linf", advlib_pgd),
    Peer("art", "ProjectedGradientDescentPyTorch", art_pgd),
)
APGD_T_PEER = Peer("pyautoattack", "APGD-T", autoattack(["apgd-t"]))
FAB_T_PEER = Peer("pyautoattack", "FAB-T", autoattack(["fab-t"]))
SQUARE_PEER = Peer("pyautoattack", "Square", autoattack(["square"]))
