"""Training of a pair through its twins, normally or adversarially, resumable to the bit."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from robustframe.devices import device_name
from robustframe.draws import Draws, derive_seed
from robustframe.errors import InputError, IntegrityError
from robustframe.files import decoding
from robustframe.frames import Frame, coherence_loss, deep_frame_potential, structural_nonzeros
from robustframe.frames.branched import BranchedFrame
from robustframe.pairs.capture import Captured
from robustframe.pairs.pair import Pair
from robustframe.pairs.plan import Adversary, Epoch, TrainingPlan, TrainingProgress
from robustframe.pairs.readouts import ReadOuts, read_out
from robustframe.pairs.reframed import ReframedPair
from robustframe.pairs.untied import Untied
from robustframe.pairs.upkeep import TRACKED, Floors, follow_step_sizes, idle_atoms, overlap_loss, signal_sizes
from robustframe.solvers import DeepPursuit, solve
from robustframe.types import Images, Labels, Logits

_PUSH = 10.0
"""Weight of the penalty on atoms that come too near."""
_CONVERGED = 25
"""Times that the step sizes are brought up to date before the first step; from there on once a step will do."""
_RENEW = 0.6
"""Share of the epochs in which atoms may begin anew; later ones would not be learned any more."""


def train_pair(
    pair: Pair | Untied,
    images: Images,
    labels: Labels,
    plan: TrainingPlan,
    *,
    seed: int = 0,
    adversary: Adversary | None = None,
    checkpoint: Path | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> list[Epoch]:
    """Train a pair in place, by default so that both twins classify well with the same parameters.

    The loss is the mean of the cross-entropies after the first and after a later sweep, or one of them. After every
    step the atoms are brought back to unit norm and the thresholds to at least 0; the step sizes follow the block
    Lipschitz constants by a few subspace iterations a step, and are recomputed to convergence at the end.

    Args:
        pair: the pair, on the device to train on.
        images: training images in [0, 1], shape (n, *in_shape), on the CPU or that device.
        labels: shape (n,).
        plan: epochs, batch, rate, and what is trained for.
        seed: of all random numbers.
        adversary: train on adversarial examples found by it.
        checkpoint: a file written after every epoch and continued from when it is there; removed by nobody.
        report: called after every batch.

    Returns:
        The learning curve, one entry an epoch, also of epochs before an interruption.

    Raises:
        InputError: for fewer images than are held out, or a plan that does not fit an untied net.
        IntegrityError: when the checkpoint is damaged or belongs to another training.
    """
    if plan.validation and not plan.batch <= len(images) - plan.validation:
        raise InputError(f"of {len(images):,} images {plan.validation:,} are held out, which leaves less than a batch")
    if plan.validation and plan.validation < _FEW:
        raise InputError(f"{plan.validation} images are too few to choose an epoch by; hold out at least {_FEW}, or 0")
    if (isinstance(pair, Untied) or pair.pursuit != "deep") and (
        plan.sweeps or plan.last or plan.active or plan.settle or plan.overlap < 1
    ):
        raise InputError("sweeps, last, active, settle and overlap are for pairs of deep pursuit; leave them out")
    if isinstance(pair, Untied) and plan.arm == "feedforward":
        raise InputError("an untied net has no feed-forward twin; train it with arm 'recurrent' or 'joint'")
    kept = len(images) - plan.validation
    trainer = _Trainer(pair, plan, adversary, seed=seed, examples=kept)
    if trainer.device.type != "cpu":
        # Batches are gathered there, not sent one by one.
        images, labels = images.to(trainer.device), labels.to(trainer.device)
    start = trainer.resume(checkpoint)
    if start == 0:
        trainer.calibrate(images[: plan.batch])
    for epoch in range(start, plan.epochs):
        trainer.run_epoch(epoch, images[:kept], labels[:kept], report)
        if plan.validation:
            trainer.validate(epoch, images[kept:], labels[kept:])
        if checkpoint is not None:
            trainer.save(checkpoint)
    trainer.settle_on_best()
    return trainer.epochs


_FEW = 100
"""Images that tell one epoch from another at the least."""


class _Task(NamedTuple):
    """What is trained at a step."""

    first: bool
    later: bool
    sweeps: int
    """Of the later read-out; the pair's own when 0."""


class _Trainer:
    """A training under way: the pair, its optimiser, and what is kept beside.

    Args:
        pair: the pair, changed in place.
        plan: what to train for.
        adversary: whose examples are trained on.
        seed: of all random numbers.
        examples: how many there are to train on.
    """

    def __init__(
        self, pair: Pair | Untied, plan: TrainingPlan, adversary: Adversary | None, *, seed: int, examples: int
    ) -> None:
        self.pair, self.plan, self.adversary, self.seed = pair, plan, adversary, seed
        self.batches = math.ceil(examples / plan.batch)
        # A network that somebody trained begins as what it is.
        self.given = isinstance(pair, ReframedPair)
        self.device = next(pair.parameters()).device
        self.parameters = dict(pair.named_parameters())
        # One group a parameter: thresholds get a rate in units of what they are compared with (`calibrate`).
        self.fused = self.device.type == "cuda"
        groups = [{"params": [p], "scale": 1.0} for p in self.parameters.values()]
        self.optimizer = torch.optim.Adam(groups, fused=self.fused)
        self.group_of = dict(zip(self.parameters.values(), self.optimizer.param_groups))
        generator = torch.Generator().manual_seed(derive_seed(seed, "power iteration"))
        self.vectors = [
            [torch.randn(TRACKED, *shape, generator=generator).to(self.device) for shape in frame.code_shapes]
            for frame in pair.frames
        ]
        self.floors = None if plan.active is None else Floors(pair.frames[0], plan.active)
        self.nonzeros = [structural_nonzeros(frame) for frame in pair.frames] if plan.potential else []
        # The potential is computed on the CPU, for which no graph can wait.
        self.captured = Captured(torch.device("cpu") if plan.potential else self.device)
        self.used: list[Tensor] = []
        self.average: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.epochs: list[Epoch] = []

    def task(self, number: int) -> _Task:
        """Say which read-outs are trained at a step."""
        plan, alone = self.plan, number < self.plan.alone * self.batches
        first, later = alone or plan.arm != "recurrent", not alone and plan.arm != "feedforward"
        drawn = 0
        if plan.sweeps and later:
            drawn = plan.sweeps[derive_seed(self.seed, "sweeps", number) % len(plan.sweeps)]
        return _Task(first, later, drawn)

    def read_out(self, task: _Task, images: Images) -> ReadOuts:
        """Run the pair for the read-outs of a step."""
        plan = self.plan
        return read_out(
            self.pair, images, first=task.first, later=task.later, sweeps=task.sweeps, last=plan.last, hurry=plan.hurry
        )

    def loss(self, task: _Task, images: Images, labels: Labels) -> tuple[Tensor, ReadOuts]:
        """The loss summed over a batch, and what it was read out of."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16"):
            found = self.read_out(task, images)
        losses = [F.cross_entropy(part.float(), labels, reduction="sum") for part in found.logits]
        return torch.stack(losses).mean(), found

    @torch.no_grad()
    def calibrate(self, images: Images) -> None:
        """Fit the scales to the data: a gain for unit codes at the head, threshold rates for each layer's signals."""
        for frame, vectors in zip(self.pair.frames, self.vectors):
            # One iteration from anywhere says far too little: steps would be too long, and many sweeps diverge.
            for each in range(_CONVERGED):
                follow_step_sizes(frame, vectors, self.captured, seed=derive_seed(self.seed, "first vectors", each))
        images, seen = images.to(self.device), []
        handle = self.pair.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
        try:
            self.read_out(self.task(self.batches * self.plan.alone), images)
        finally:
            handle.remove()
        if not self.given:
            self.pair.gain.div_(_size(torch.cat(seen)))
        for frame in self.pair.frames:
            if isinstance(frame, BranchedFrame):
                self._scale_branches(frame)
            for code, layer in zip(solve(DeepPursuit(sweeps=1), frame, images).codes, frame.blocks):
                self.group_of[layer.threshold]["scale"] = float(_size(code) / layer.step_size)
        if self.floors is not None:
            self.floors.start([self.group_of[layer.threshold]["scale"] for layer in self.floors.frame.blocks])
        if self.plan.average:
            self.average = {name: tensor.detach().clone() for name, tensor in self.pair.state_dict().items()}

    def _scale_branches(self, frame: BranchedFrame) -> None:
        """Let atoms move as much as those of other frames, whatever the size that their codes are kept at."""
        for j in range(1, len(frame.layers) + 1):
            for part in frame.branches(j):
                self.group_of[part.weight]["scale"] = float(part.ratio.clamp_min(1e-30)) ** -0.5

    def run_epoch(self, epoch: int, images: Images, labels: Labels, report: Callable[[TrainingProgress], None]) -> None:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = torch.randperm(len(images), generator=generator).to(images.device)
        seen, total, right, began = 0, 0.0, 0, perf_counter()
        for at, rows in enumerate(torch.split(order, self.plan.batch)):
            draws = Draws((self.seed, "batch", epoch, at), len(rows), device=self.device)
            x, y = images[rows].to(self.device), labels[rows].to(self.device)
            x = augmented(x, draws, flip=self.plan.flip, shift=self.plan.shift)
            number = epoch * self.batches + at
            if self.adversary is not None:
                x = self.attack(x, y, draws, number)
            loss, logits = self.step(x, y, number)
            seen, total = seen + len(rows), total + loss
            right += int((logits.argmax(1) == y).sum())
            report(TrainingProgress(epoch + 1, self.plan.epochs, at + 1, self.batches, total / seen, right / seen))
        if self.plan.overlap < 1 and epoch + 1 <= _RENEW * self.plan.epochs:
            self.renew(epoch)
        self.used = []
        self.epochs.append(Epoch(total / seen, right / seen, perf_counter() - began, device=device_name(self.device)))

    def attack(self, x: Images, y: Labels, draws: Draws, number: int) -> Images:
        adversary = self.adversary
        if adversary is None:
            return x
        threat, task = adversary.threat, self.task(number)
        z = threat.random_start(x, draws)
        with _frozen(self.pair):
            for _ in range(adversary.steps):
                (slope,) = self.captured(("slope", task), partial(self.slope, task), z, y)
                step = adversary.step_size * threat.eps * threat.steepest_ascent(slope)
                z = threat.project(x, z + step)
        return z

    def slope(self, task: _Task, z: Images, y: Labels) -> tuple[Tensor]:
        """Return the gradient of the loss in the images."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(task, z, y)[0], z)
        return (slope,)

    def step(self, x: Images, y: Labels, number: int) -> tuple[float, Logits]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number) * group["scale"]
        task = self.task(number)
        loss, logits, *rest = self.captured(("step", task), partial(self.gradients, task), x, y)
        for parameter in self.parameters.values():
            parameter.grad = rest.pop(0)
        self.optimizer.step()
        self.look_after(tuple(rest), number)
        return float(loss), logits

    def gradients(self, task: _Task, x: Images, y: Labels) -> tuple[Tensor, ...]:
        """Return the loss, the last logits, the gradient of each parameter, and the codes."""
        loss, found = self.loss(task, x, y)
        objective = loss / len(x)
        for penalty in self.penalties(found):
            objective = objective + penalty
        slopes = torch.autograd.grad(objective, list(self.parameters.values()), materialize_grads=True)
        codes = tuple(code.detach() for code in found.codes)
        return loss.detach(), found.logits[-1].detach(), *slopes, *codes

    def penalties(self, found: ReadOuts) -> Iterator[Tensor]:
        """Yield what is added to the mean loss."""
        plan, frames = self.plan, self.pair.frames
        if plan.coherence:
            yield plan.coherence * torch.stack([coherence_loss(frame) for frame in frames]).mean()
        if plan.overlap < 1:
            yield _PUSH * torch.stack([overlap_loss(frame, plan.overlap) for frame in frames]).mean()
        if plan.settle and found.change is not None:
            yield plan.settle * found.change
        for frame, nonzeros in zip(frames, self.nonzeros):
            potential = deep_frame_potential(frame, nonzeros=nonzeros)
            yield plan.potential / len(frames) * potential.to(self.device, torch.float32)

    @torch.no_grad()
    def look_after(self, codes: tuple[Tensor, ...], number: int) -> None:
        """Bring everything beside the parameters up to date after a step."""
        for frame, vectors in zip(self.pair.frames, self.vectors):
            frame.project_()
            before = signal_sizes(frame) if self.plan.rescale else []
            follow_step_sizes(frame, vectors, self.captured, seed=derive_seed(self.seed, "vectors", number))
            if before:
                self.rescale(frame, [new / old for old, new in zip(before, signal_sizes(frame))])
        if self.floors is not None:
            self.floors.follow(codes)
            self.floors.hold()
        if self.plan.overlap < 1 and codes:
            active = [(code > 0).float().transpose(0, 1).flatten(1).mean(1) for code in codes]
            self.used = [old + new for old, new in zip(self.used, active)] if self.used else active
        if self.plan.average:
            # Young averages forget faster, so that the random beginning does not stay in them.
            decay = min(self.plan.average, (2 + number) / (11 + number))
            now = self.pair.state_dict()
            torch._foreach_lerp_([self.average[name] for name in now], list(now.values()), 1 - decay)

    def rate(self, number: int) -> float:
        warm, all_steps = self.batches, self.batches * self.plan.epochs
        if number < warm and self.plan.epochs > 1:
            return self.plan.learning_rate * (number + 1) / warm
        return self.plan.learning_rate * 0.5 * (1 + math.cos(math.pi * number / all_steps))

    @torch.no_grad()
    def rescale(self, frame: Frame, ratios: list[float]) -> None:
        """Move thresholds, their rates and moments, and the gain with the sizes of what they are applied to."""
        for j, (layer, ratio) in enumerate(zip(frame.blocks, ratios)):
            layer.threshold.mul_(ratio)
            self.group_of[layer.threshold]["scale"] *= ratio
            state = self.optimizer.state[layer.threshold]
            state["exp_avg"].div_(ratio)
            state["exp_avg_sq"].div_(ratio**2)
            if self.floors is not None:
                self.floors.values[j] *= ratio
        # Each frame of an untied net gives its share; the codes of all of them end at the one head.
        self.pair.gain.div_(ratios[-1] ** (1 / len(self.pair.frames)))

    @torch.no_grad()
    def renew(self, epoch: int) -> None:
        """Let atoms that repeat others, or were never active, begin anew at random."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "renew", epoch))
        for layer, used in zip(self.pair.frames[0].blocks, self.used):
            weight, rows = layer.operator.weight, idle_atoms(layer, used, self.plan.overlap)
            if not len(rows):
                continue
            weight[rows] = torch.randn((len(rows), *weight.shape[1:]), generator=generator).to(weight)
            layer.threshold[rows] = layer.threshold.median()
            for key in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[weight][key][rows] = 0
        self.pair.frames[0].project_()

    def kept(self) -> Pair | Untied:
        """Return a copy of the pair as it would be kept now: averaged where asked for, its steps converged."""
        pair = copy.deepcopy(self.pair)
        if self.plan.average:
            pair.load_state_dict(self.average)
        for frame in pair.frames:
            frame.project_()
            frame.update_step_sizes_()
        return pair

    def validate(self, epoch: int, images: Images, labels: Labels) -> None:
        """Score the pair after an epoch on the images held out, and remember it when it is the best so far."""
        plan, mine, alone = self.plan, (self.pair, self.captured), epoch < self.plan.alone
        most, right = max(plan.sweeps, default=self.pair.sweeps), []
        # A graph holds the parameters that it was recorded with, which are not those of this copy.
        self.pair, self.captured = self.kept(), Captured(torch.device("cpu"))
        try:
            for at, rows in enumerate(torch.split(torch.arange(len(images)), 500)):
                x, y = images[rows].to(self.device), labels[rows].to(self.device)
                draws = Draws((self.seed, "held out", at), len(x), device=self.device)
                x = self.attack(x, y, draws, epoch * self.batches)
                with torch.no_grad():
                    found = read_out(
                        self.pair, x, first=alone or plan.arm != "recurrent",
                        later=not alone and plan.arm != "feedforward", sweeps=most,
                    )  # fmt: skip
                right.append(torch.stack([logits.argmax(1) == y for logits in found.logits]))
            score = float(torch.cat(right, 1).float().mean(1).min())
            earlier = [each.validation or 0.0 for each in self.epochs[plan.alone : -1]]
            # The last of equals: it was trained longer. What is trained alone is no end of any other arm.
            if alone or score >= max(earlier, default=0.0):
                self.best = {name: tensor.detach().clone() for name, tensor in self.pair.state_dict().items()}
        finally:
            self.pair, self.captured = mine
        self.epochs[-1] = replace(self.epochs[-1], validation=score)

    def settle_on_best(self) -> None:
        """Give the pair what is kept of the training."""
        self.pair.load_state_dict(self.best or self.kept().state_dict())

    def identity(self) -> str:
        """Say which training a checkpoint belongs to."""
        shapes = {name: list(tensor.shape) for name, tensor in self.parameters.items()}
        adversary = None if self.adversary is None else asdict(self.adversary)
        rows = [asdict(row) for row in self.pair.frames[0].rows]
        pursuit = self.pair.pursuit if isinstance(self.pair, Pair) else "untied"
        content = [self.seed, self.plan.model_dump(), adversary, shapes, rows, pursuit, self.pair.sweeps, self.batches]
        return json.dumps(content, sort_keys=True)

    def save(self, path: Path) -> None:
        tensors = {f"pair.{name}": tensor for name, tensor in self.pair.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"vector.{i}.{j}": vector for i, j, vector in self.all_vectors()}
        tensors["scales"] = torch.tensor([group["scale"] for group in self.optimizer.param_groups], dtype=torch.float64)
        tensors["floors"] = torch.tensor([] if self.floors is None else self.floors.values, dtype=torch.float64)
        for name, parameter in self.parameters.items():
            tensors |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        curve = json.dumps([asdict(epoch) for epoch in self.epochs])
        save_file(tensors, aside, metadata={"epochs": curve, "training": self.identity()})
        aside.replace(path)

    def resume(self, path: Path | None) -> int:
        """Take up the state of a checkpoint, if there is one; return the epochs it has done."""
        if path is None or not path.exists():
            return 0
        with decoding(path, "a checkpoint of a training", "delete it to start over"):
            return self._take_up(path)

    def _take_up(self, path: Path) -> int:
        with safe_open(path, "pt", device=str(self.device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("training") != self.identity():
            raise IntegrityError(f"{path} belongs to another training; delete it or choose another folder")
        self.pair.load_state_dict(_part(tensors, "pair."), strict=True)
        self.average, self.best = _part(tensors, "average."), _part(tensors, "best.")
        for i, j, _ in self.all_vectors():
            self.vectors[i][j] = tensors[f"vector.{i}.{j}"]
        for group, scale in zip(self.optimizer.param_groups, tensors["scales"].tolist()):
            group["scale"] = scale
        if self.floors is not None:
            self.floors.values = tensors["floors"].tolist()
        for name, parameter in self.parameters.items():
            state = _part(tensors, f"adam.{name}.")
            # Adam counts its steps on the CPU unless fused, and its moments keep the parameter's memory format.
            state["step"] = state["step"].to(self.device if self.fused else "cpu")
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = torch.empty_like(parameter).copy_(state[key])
            self.optimizer.state[parameter] = state
        self.epochs = [Epoch(**epoch) for epoch in json.loads(metadata["epochs"])]
        return len(self.epochs)

    def all_vectors(self) -> list[tuple[int, int, Tensor]]:
        """The vectors of the power iterations, with frame and layer."""
        return [(i, j, vector) for i, vectors in enumerate(self.vectors) for j, vector in enumerate(vectors)]


def augmented(images: Images, draws: Draws, *, flip: bool, shift: int) -> Images:
    """Mirror images left to right with probability 1/2, and move them by up to ``shift`` pixels, black coming in."""
    if flip:
        images = torch.where(draws.uniform(1, 1, 1) < 0.5, images.flip(-1), images)
    if shift:
        count, channels, height, width = images.shape
        wide = F.pad(images, (shift, shift, shift, shift))
        down, right = (draws.integers(2 * shift + 1, 1) for _ in range(2))
        each = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
        rows = (down + torch.arange(height, device=images.device)).view(count, 1, height, 1)
        columns = (right + torch.arange(width, device=images.device)).view(count, 1, 1, width)
        images = wide[each, channel, rows, columns]
    return images


def _part(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _size(values: Tensor) -> Tensor:
    return values.square().mean().sqrt().clamp_min(1e-6)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Spare the gradients of the parameters while only the input's are wanted."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
