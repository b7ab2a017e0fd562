"""Training of a pair through both of its twins at once, normally or adversarially, resumable to the bit."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from robustframe.draws import Draws, derive_seed
from robustframe.errors import InputError, IntegrityError
from robustframe.files import decoding
from robustframe.frames import Frame, coherence_loss
from robustframe.pairs.pair import Pair
from robustframe.pairs.untied import Untied
from robustframe.solvers import DeepPursuit, solve
from robustframe.threat import ThreatModel
from robustframe.types import Images, Labels, Logits


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The attack of adversarial training (Madry et al., 2018, arXiv:1706.06083): PGD on the sum of both losses."""

    threat: ThreatModel
    steps: int = 3
    step_size: float = 0.5
    """Fraction of eps."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0:
            raise InputError(f"an adversary needs steps >= 1 and step_size > 0, not {self.steps}, {self.step_size}")
        if self.threat.norm == "l0":
            raise InputError(f"an adversary climbs along gradients, which {self.threat.label} does not allow")


TrainedFor = Literal["joint", "first", "last"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train for, how long and how fast."""

    seed: int
    epochs: int
    batch: int = 256
    learning_rate: float = 2e-3
    """Peak rate of Adam: one warm-up epoch up to it, then a cosine down to zero."""
    coherence: float = 0.0
    """Weight of the coherence penalty beside the cross-entropy."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    trained_for: TrainedFor = "joint"
    """Whose loss: of the ``"first"`` sweep (the feed-forward twin alone), of the ``"last"``, or the mean of both."""
    rescale: bool = False
    """Let thresholds and gain follow the step sizes, so that growing atoms do not shrink the codes under them. Without
    it deep frames hardly learn; it is off where a shipped pair was trained before it existed."""
    precision: Precision = "float32"
    """``"bf16"`` computes both passes in bfloat16 where that is safe; parameters and updates stay in float32."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0 or self.coherence < 0:
            raise InputError("a schedule needs epochs >= 1, batch >= 1, learning_rate > 0 and coherence >= 0")


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve."""

    loss: float
    """Mean training loss."""
    accuracy: float
    """Training accuracy, in [0, 1], on adversarial examples where trained so."""
    seconds: float
    """Wall-clock time."""


@dataclass(frozen=True)
class TrainingProgress:
    """What a training says after each batch."""

    epoch: int
    batch: int
    batches: int
    loss: float
    """Mean loss of the epoch so far."""
    accuracy: float
    """Accuracy on the training batches of the epoch so far (adversarial where trained so), after the last sweep that is
    trained for."""


def train_pair(
    pair: Pair | Untied,
    images: Images,
    labels: Labels,
    schedule: TrainingPlan,
    *,
    adversary: Adversary | None = None,
    checkpoint: Path | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> list[Epoch]:
    """Train a pair in place, by default so that both twins classify well with the same parameters.

    The loss is the mean of the cross-entropies after the first and after the last sweep, or one of them. After every
    step the atoms
    are brought back to unit norm and the thresholds to at least 0; the step sizes follow the block Lipschitz
    constants by one power iteration a step, and are recomputed to convergence at the end.

    Args:
        pair: the pair, on the device to train on.
        images: training images in [0, 1], shape (n, *in_shape), on the CPU or that device.
        labels: shape (n,).
        schedule: seed, epochs, batch and rate.
        adversary: train on adversarial examples found by it.
        checkpoint: a file written after every epoch and continued from when it is there; removed by nobody.
        report: called after every batch.

    Returns:
        The learning curve, one entry an epoch, also of epochs before an interruption.

    Raises:
        IntegrityError: when the checkpoint is damaged or belongs to another training.
    """
    trainer = _Trainer(pair, schedule, adversary, len(images))
    start = trainer.resume(checkpoint)
    if start == 0:
        trainer.calibrate(images[: schedule.batch])
    for epoch in range(start, schedule.epochs):
        trainer.run_epoch(epoch, images, labels, report)
        if checkpoint is not None:
            trainer.save(checkpoint)
    for frame in pair.frames:
        frame.update_step_sizes_()
    return trainer.epochs


class _Trainer:
    def __init__(self, pair: Pair | Untied, schedule: TrainingPlan, adversary: Adversary | None, examples: int) -> None:
        self.pair, self.schedule, self.adversary = pair, schedule, adversary
        self.batches = math.ceil(examples / schedule.batch)
        self.device = next(pair.parameters()).device
        self.parameters = dict(pair.named_parameters())
        # One group a parameter: thresholds get a rate in units of what they are compared with (`calibrate`).
        self.optimizer = torch.optim.Adam([{"params": [p], "scale": 1.0} for p in self.parameters.values()])
        self.group_of = dict(zip(self.parameters.values(), self.optimizer.param_groups))
        seed = torch.Generator().manual_seed(derive_seed(schedule.seed, "power iteration"))
        self.vectors = [
            [torch.randn(1, *shape, generator=seed).to(self.device) for shape in frame.code_shapes]
            for frame in pair.frames
        ]
        self.epochs: list[Epoch] = []

    def logits(self, images: Images) -> tuple[Logits, ...]:
        """The logits that are trained."""
        if self.schedule.trained_for == "first" and isinstance(self.pair, Pair):
            return (self.pair.feedforward(images),)
        both = self.pair.first_and_last(images)
        return both if self.schedule.trained_for == "joint" else both[1:]

    def loss(self, images: Images, labels: Labels) -> tuple[Tensor, Logits]:
        """The loss summed over a batch, and the logits after the last sweep that is trained."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.schedule.precision == "bf16"):
            logits = self.logits(images)
        losses = [F.cross_entropy(part.float(), labels, reduction="sum") for part in logits]
        return torch.stack(losses).mean(), logits[-1]

    @torch.no_grad()
    def calibrate(self, images: Images) -> None:
        """Fit the scales to the data: a gain for unit codes at the head, threshold rates for each layer's signals."""
        images, seen = images.to(self.device), []
        handle = self.pair.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
        try:
            self.logits(images)
        finally:
            handle.remove()
        self.pair.gain.div_(_size(torch.cat(seen)))
        for frame in self.pair.frames:
            for code, layer in zip(solve(DeepPursuit(sweeps=1), frame, images).codes, frame.blocks):
                self.group_of[layer.threshold]["scale"] = float(_size(code) / layer.step_size)

    def run_epoch(self, epoch: int, images: Images, labels: Labels, report: Callable[[TrainingProgress], None]) -> None:
        generator = torch.Generator().manual_seed(derive_seed(self.schedule.seed, "order", epoch))
        order = torch.randperm(len(images), generator=generator)
        seen, total, right, began = 0, 0.0, 0, perf_counter()
        for number, rows in enumerate(torch.split(order, self.schedule.batch)):
            draws = Draws((self.schedule.seed, "batch", epoch, number), len(rows), device=self.device)
            x, y = images[rows].to(self.device), labels[rows].to(self.device)
            if self.schedule.flip:
                x = torch.where(draws.uniform(1, 1, 1) < 0.5, x.flip(-1), x)
            if self.adversary is not None:
                x = self.attack(x, y, draws)
            loss, logits = self.step(x, y, epoch * self.batches + number)
            seen, total = seen + len(rows), total + loss
            right += int((logits.argmax(1) == y).sum())
            report(TrainingProgress(epoch + 1, number + 1, self.batches, total / seen, right / seen))
        self.epochs.append(Epoch(total / seen, right / seen, perf_counter() - began))

    def attack(self, x: Images, y: Labels, draws: Draws) -> Images:
        adversary = self.adversary
        if adversary is None:
            return x
        threat = adversary.threat
        z = threat.random_start(x, draws)
        with _frozen(self.pair):
            for _ in range(adversary.steps):
                z = z.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.loss(z, y)[0], z)
                step = adversary.step_size * threat.eps * threat.steepest_ascent(slope)
                z = threat.project(x, z.detach() + step)
        return z

    def step(self, x: Images, y: Labels, number: int) -> tuple[float, Logits]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number) * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self.loss(x, y)
        objective = loss / len(x)
        if self.schedule.coherence:
            penalties = [coherence_loss(frame) for frame in self.pair.frames]
            objective = objective + self.schedule.coherence * torch.stack(penalties).mean()
        objective.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        for frame, vectors in zip(self.pair.frames, self.vectors):
            frame.project_()
            before = _sizes(frame) if self.schedule.rescale else []
            follow_step_sizes(frame, vectors)
            if before:
                self.rescale(frame, [new / old for old, new in zip(before, _sizes(frame))])
        return float(loss.detach()), logits.detach()

    def rate(self, number: int) -> float:
        warm, all_steps = self.batches, self.batches * self.schedule.epochs
        if number < warm and self.schedule.epochs > 1:
            return self.schedule.learning_rate * (number + 1) / warm
        return self.schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * number / all_steps))

    @torch.no_grad()
    def rescale(self, frame: Frame, ratios: list[float]) -> None:
        """Move thresholds, their rates and moments, and the gain with the sizes of what they are applied to."""
        for layer, ratio in zip(frame.blocks, ratios):
            layer.threshold.mul_(ratio)
            self.group_of[layer.threshold]["scale"] *= ratio
            state = self.optimizer.state[layer.threshold]
            state["exp_avg"].div_(ratio)
            state["exp_avg_sq"].div_(ratio**2)
        # Each frame of an untied net gives its share; the codes of all of them end at the one head.
        self.pair.gain.div_(ratios[-1] ** (1 / len(self.pair.frames)))

    def identity(self) -> str:
        """Say which training a checkpoint belongs to."""
        shapes = {name: list(tensor.shape) for name, tensor in self.parameters.items()}
        adversary = None if self.adversary is None else asdict(self.adversary)
        rows = [asdict(row) for row in self.pair.frames[0].rows]
        pursuit = self.pair.pursuit if isinstance(self.pair, Pair) else "untied"
        content = [asdict(self.schedule), adversary, shapes, rows, pursuit, self.pair.sweeps, self.batches]
        return json.dumps(content, sort_keys=True)

    def save(self, path: Path) -> None:
        tensors = {f"pair.{name}": tensor for name, tensor in self.pair.state_dict().items()}
        tensors |= {f"vector.{i}.{j}": vector for i, j, vector in self.all_vectors()}
        tensors["scales"] = torch.tensor([group["scale"] for group in self.optimizer.param_groups], dtype=torch.float64)
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
        own = {name.removeprefix("pair."): t for name, t in tensors.items() if name.startswith("pair.")}
        self.pair.load_state_dict(own, strict=True)
        for i, j, _ in self.all_vectors():
            self.vectors[i][j] = tensors[f"vector.{i}.{j}"]
        for group, scale in zip(self.optimizer.param_groups, tensors["scales"].tolist()):
            group["scale"] = scale
        for name, parameter in self.parameters.items():
            start = f"adam.{name}."
            state = {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}
            # Adam counts its steps on the CPU, and its moments keep the parameter's memory format.
            state["step"] = state["step"].cpu()
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = torch.empty_like(parameter).copy_(state[key])
            self.optimizer.state[parameter] = state
        self.epochs = [Epoch(**epoch) for epoch in json.loads(metadata["epochs"])]
        return len(self.epochs)

    def all_vectors(self) -> list[tuple[int, int, Tensor]]:
        """The vectors of the power iterations, with frame and layer."""
        return [(i, j, vector) for i, vectors in enumerate(self.vectors) for j, vector in enumerate(vectors)]


@torch.no_grad()
def follow_step_sizes(frame: Frame, vectors: list[Tensor]) -> None:
    """Bring step sizes up to date by one power iteration a layer, which starts and ends in ``vectors``."""
    for at, layer in enumerate(frame.blocks):
        unit = vectors[at] / torch.linalg.vector_norm(vectors[at])
        vectors[at] = layer.operator.analysis(layer.operator.synthesis(unit))
        layer.step_size.copy_(1 / (torch.linalg.vector_norm(vectors[at]) + frame.pull(at + 1)))


def _sizes(frame: Frame) -> list[float]:
    """How the size of what each layer's threshold, and at last the head, is applied to depends on the step sizes."""
    steps: list[float] = torch.stack([layer.step_size for layer in frame.blocks]).tolist()
    codes, targets = [1.0], []
    for row, step in zip(frame.rows, steps):
        read = row.sources if row.skip is None else (*row.sources, row.skip)
        targets.append(math.sqrt(sum(codes[k] ** 2 for k in read)))
        codes.append(step * targets[-1])
    return [*targets, codes[-1]]


def _size(values: Tensor) -> Tensor:
    return values.square().mean().sqrt().clamp_min(1e-6)


class _frozen:
    """Spare the gradients of the parameters while only the input's are wanted."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)

    def __exit__(self, *exc: object) -> None:
        self.module.requires_grad_(True)
