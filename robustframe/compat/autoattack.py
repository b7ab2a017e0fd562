"""AutoAttack's class (Croce and Hein, 2020, arXiv:2003.01690; github.com/fra31/auto-attack) with a run behind it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from robustframe.calls import borrowed, call_in_batches, device_of, predict
from robustframe.compat.shared import as_module, threat_of
from robustframe.data import from_arrays
from robustframe.errors import InputError, unknown
from robustframe.evaluation import evaluate
from robustframe.evaluation.progress import Moment, Report, silent
from robustframe.recipe import Battery
from robustframe.runs import Run
from robustframe.types import Images, Labels

_VERSIONS = {
    "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
    "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
    "rand": ["apgd-ce", "apgd-dlr"],
    "custom": [],
}
_SHIPPED = {"standard": "standard@1", "rand": "rand@1"}
"""The versions that are batteries of ours, as long as nobody sets anything else."""
_VOTES = 21
"""Fresh evaluations of an image of a random model, as in `rand@1`."""


@dataclass(slots=True)
class APGDSettings:
    """What may be set of ``adversary.apgd``."""

    n_iter: int = 100
    n_restarts: int = 5
    eot_iter: int = 1


@dataclass(slots=True)
class APGDTSettings:
    """What may be set of ``adversary.apgd_targeted``."""

    n_iter: int = 100
    n_restarts: int = 1
    n_target_classes: int = 9
    eot_iter: int = 1


@dataclass(slots=True)
class FABSettings:
    """What may be set of ``adversary.fab``; targeted, it has one restart."""

    n_iter: int = 100
    n_restarts: int = 5
    n_target_classes: int = 9


@dataclass(slots=True)
class SquareSettings:
    """What may be set of ``adversary.square``."""

    n_queries: int = 5000
    n_restarts: int = 1
    p_init: float = 0.8
    resc_schedule: bool = False


class AutoAttack:
    """AutoAttack, called as the original is.

    ``standard`` is our battery ``standard@1`` and ``rand`` is ``rand@1``; ``plus``, ``custom``, and either of those
    with other settings or attacks, is a battery made of the same attacks. ``apgd``, ``apgd_targeted``, ``fab`` and
    ``square`` have settings as there, ``adversary.apgd.n_restarts = 2``. After each evaluation `run` holds everything
    found.

    Args:
        model: a module, evaluated on the device it is on, or a function from images in [0, 1] to logits.
        norm: ``"Linf"``, ``"L2"`` or ``"L1"``.
        eps: radius in input units, or its text, such as ``"8/255"``.
        seed: of all random numbers; 0 when left out.
        verbose: print robust accuracy after each attack.
        attacks_to_run: for ``version="custom"``: some of apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square, in order.
        version: ``"standard"``, ``"plus"``, ``"rand"`` or ``"custom"``.
        is_tf_model: must be false.
        device: where a function takes its images; of no meaning for a module.
        log_path: a file to which what is printed is added.

    Raises:
        InputError: for an unknown norm or version, a model of TensorFlow, or attacks to run without
            ``version="custom"``.
    """

    def __init__(
        self,
        model: Any,
        norm: str = "Linf",
        eps: float | str = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = [],
        version: str = "standard",
        is_tf_model: bool = False,
        device: Any = "cuda",
        log_path: Any = None,
    ) -> None:
        if is_tf_model:
            raise InputError("is_tf_model=True is not here; give a PyTorch model, or a function from tensors to logits")
        if version not in _VERSIONS:
            raise unknown("version", str(version), _VERSIONS)
        if version != "custom" and len(attacks_to_run):
            raise InputError(f"attacks_to_run is given together with version={version!r}; say version='custom' as well")
        self.model, self.norm, self.epsilon, self.seed = model, norm, threat_of(norm, eps).eps, seed
        self.verbose, self.version, self.device, self.log_path = verbose, version, device, log_path
        self.attacks_to_run = list(_VERSIONS[version]) or list(attacks_to_run)
        self.apgd, self.apgd_targeted = APGDSettings(), APGDTSettings()
        self.fab, self.square = FABSettings(), SquareSettings()
        if version == "standard":
            self.apgd.n_restarts, self.fab.n_restarts = (5 if norm == "L1" else 1), 1
            self.apgd_targeted.n_target_classes = 5 if norm == "L1" else 9
        elif version == "rand":
            self.apgd.n_restarts, self.apgd.eot_iter = 1, 20
        self._as_made = self._asked(self.attacks_to_run) if version in _SHIPPED else []
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The run of the last evaluation: record, verdicts, checks, ``run.table()``.

        Raises:
            InputError: before the first.
        """
        if self._run is None:
            raise InputError("nothing has been evaluated; call run_standard_evaluation(x, y) first")
        return self._run

    def run_standard_evaluation(
        self, x_orig: Images, y_orig: Labels, bs: int = 250, return_labels: bool = False, state_path: Any = None
    ) -> Any:
        """Attack each example with one attack after the other until it is broken.

        Args:
            x_orig: images in [0, 1], shape (n, ...).
            y_orig: class numbers, shape (n,).
            bs: rows of one model call at most; it changes no image.
            return_labels: also return the classes that the model gives to the images returned.
            state_path: folder in which the run is kept, and from which it is continued.

        Returns:
            For each example the image that broke it, or the clean one, shape (n, ...); with ``return_labels`` also
            classes, shape (n,).

        Raises:
            InputError: for an unknown attack, images outside [0, 1], labels out of range, a model that gives no logits,
                or a ``state_path`` where something else lies.
        """
        x_adv, y_adv = self._standard((x_orig, y_orig), x_orig, y_orig, bs, state_path)
        return (x_adv, y_adv) if return_labels else x_adv

    def _standard(
        self, given: tuple[Any, ...], x_orig: Images, y_orig: Labels, bs: int, state_path: Any
    ) -> tuple[Images, Labels]:
        """As `run_standard_evaluation`, of the same examples as `robustframe.evaluate` takes them."""
        said = _Said(self._say)
        self._say(f"using {self.version} version including {', '.join(self.attacks_to_run)}.")
        run = self._evaluated(self.attacks_to_run, given, bs, said, out=state_path)
        said.close()
        x_adv, y_adv = _outcome(run, x_orig, y_orig)
        found = run.results[0]
        distance = run.threats[0].distance(x_orig, x_adv).max()
        self._say(
            f"max {self.norm} perturbation: {distance:.5f}, nan in tensor: {int(x_adv.isnan().sum())}, "
            f"max: {x_adv.max():.5f}, min: {x_adv.min():.5f}"
        )
        self._say(f"robust accuracy: {found.robust_correct / found.examples:.2%}")
        if found.diagnosis is not None:
            for check in found.diagnosis.reasons:
                self._say(f"this number is {found.diagnosis.verdict}: {check.sentence}")
        return x_adv, y_adv

    def run_standard_evaluation_individual(
        self, x_orig: Images, y_orig: Labels, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Attack all examples with each attack by itself.

        Args:
            x_orig: images in [0, 1], shape (n, ...).
            y_orig: class numbers, shape (n,).
            bs: rows of one model call at most; it changes no image.
            return_labels: also return classes, as `run_standard_evaluation` does.

        Returns:
            By the name of each attack what `run_standard_evaluation` returns. `run` is that of the last attack.
        """
        found: dict[str, Any] = {}
        for name in self.attacks_to_run:
            started = time.perf_counter()
            run = self._evaluated([name], (x_orig, y_orig), bs, silent, diagnose=False)
            x_adv, y_adv = _outcome(run, x_orig, y_orig)
            found[name] = (x_adv, y_adv) if return_labels else x_adv
            row = run.results[0]
            share, seconds = row.robust_correct / row.examples, time.perf_counter() - started
            self._say(f"robust accuracy by {name.upper()}\t{share:.2%}\t(time attack: {seconds:.1f} s)")
        return found

    def clean_accuracy(self, x_orig: Images, y_orig: Labels, bs: int = 250) -> float:
        """Return the share of images that the model gets right as they are.

        Args:
            x_orig: images in [0, 1], shape (n, ...).
            y_orig: class numbers, shape (n,).
            bs: rows of one model call at most.
        """
        model, data = as_module(self.model, self.device), from_arrays(x_orig, y_orig)
        with borrowed(model) as lent, torch.no_grad():
            logits = call_in_batches(lent, data.images.to(device_of(model)), bs)
        share = float((predict(logits).cpu() == data.labels).double().mean())
        self._say(f"clean accuracy: {share:.2%}")
        return share

    def _evaluated(
        self,
        attacks: Sequence[str],
        given: tuple[Any, ...],
        bs: int,
        report: Report,
        *,
        out: Any = None,
        diagnose: bool = True,
    ) -> Run:
        asked, ours = self._asked(attacks), _SHIPPED.get(self.version)
        self._run = evaluate(
            as_module(self.model, self.device), *given,
            threat=threat_of(self.norm, self.epsilon),
            battery=ours if ours is not None and asked == self._as_made else _battery(self.version, asked),
            seed=self.seed or 0, batch_size=bs, out=out, diagnose=diagnose, report=report,
        )  # fmt: skip
        return self._run

    def _asked(self, attacks: Sequence[str]) -> list[dict[str, Any]]:
        """The attacks with their settings, as a battery says them."""
        if not attacks:
            raise InputError("version='custom' runs nothing yet; say attacks_to_run=['apgd-ce', 'fab-t']")
        return [self._words(name) for name in attacks]

    def _words(self, name: str) -> dict[str, Any]:
        apgd, aimed, fab, square = self.apgd, self.apgd_targeted, self.fab, self.square
        if name in ("apgd-ce", "apgd-dlr"):
            loss = "cross_entropy" if name == "apgd-ce" else "dlr"
            return {
                "use": "apgd", "name": name, "loss": loss, "steps": apgd.n_iter, "restarts": apgd.n_restarts,
                "eot": apgd.eot_iter,
            }  # fmt: skip
        if name == "apgd-t":
            return {
                "use": name, "targets": aimed.n_target_classes, "steps": aimed.n_iter, "restarts": aimed.n_restarts,
                "eot": aimed.eot_iter,
            }  # fmt: skip
        if name in ("fab", "fab-t"):
            restarts = fab.n_restarts if name == "fab" else 1
            return {"use": name, "targets": fab.n_target_classes, "steps": fab.n_iter, "restarts": restarts}
        if name == "square":
            return {
                "use": name, "queries": square.n_queries, "restarts": square.n_restarts, "p_init": square.p_init,
                "resc_schedule": square.resc_schedule,
            }  # fmt: skip
        raise unknown("attack", str(name), _VERSIONS["plus"])

    def _say(self, text: str) -> None:
        if not self.verbose:
            return
        print(text)  # noqa: T201  The original does, and its users read it.
        if self.log_path is not None:
            with open(self.log_path, "a", encoding="utf-8") as log:
                log.write(f"{text}\n")


class _Said:
    """Says the robust accuracy after each attack of an evaluation, once the next begins."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._started = say, time.perf_counter()
        self._last: Moment | None = None

    def __call__(self, moment: Moment) -> None:
        """Take in what a finished unit says."""
        if self._last is not None and self._last.attack != moment.attack:
            self.close()
        self._last = moment

    def close(self) -> None:
        """Say what the last attack left."""
        last, self._last = self._last, None
        if last is None or last.attack == "diagnosis":
            return
        if last.attack == "clean":
            self._say(f"initial accuracy: {last.robust_accuracy:.2%}")
            return
        name = last.attack.partition("/")[2].partition("-")[2].upper()
        seconds = time.perf_counter() - self._started
        self._say(f"robust accuracy after {name}: {last.robust_accuracy:.2%} (total time {seconds:.1f} s)")


def _outcome(run: Run, x: Images, y: Labels) -> tuple[Images, Labels]:
    """Return for each example the image that broke it, or the clean one, and the class of that, as those given lie."""
    images, broken = run.adversarial()
    x_adv = x.detach().clone()
    if len(images):
        x_adv[broken.to(x.device)] = images.to(x)
    row = run.results[0]
    verdicts = run.rows(row.classifier, row.threat)
    said = verdicts["adversarial_prediction"].fill_null(verdicts["clean_prediction"])
    return x_adv, torch.from_numpy(said.to_numpy().copy()).to(y)


def _battery(version: str, attacks: Sequence[Mapping[str, object]]) -> Battery:
    """Make a battery of some attacks; the votes on a random model are those of `rand`."""
    content = {"schema": 1, "name": f"autoattack-{version}", "version": "1", "attack": attacks}
    return Battery.model_validate(content | ({"votes": _VOTES} if version == "rand" else {}))
