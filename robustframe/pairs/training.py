"""Training of a pair through both of its twins at once, normally or adversarially, resumable to the bit."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from robustframe.draws import Draws, derive_seed
from robustframe.errors import InputError, IntegrityError
from robustframe.frames import coherence_loss
from robustframe.pairs.pair import Pair
from robustframe.solvers import DeepPursuit, iterate
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


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train."""

    seed: int
    epochs: int
    batch: int = 256
    learning_rate: float = 2e-3
    """Peak rate of Adam: one warm-up epoch up to it, then a cosine down to zero."""
    coherence: float = 0.0
    """Weight of the coherence penalty beside the cross-entropy."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0 or self.coherence < 0:
            raise InputError("a schedule needs epochs >= 1, batch >= 1, learning_rate > 0 and coherence >= 0")


@dataclass(frozen=True)
class Progress:
    """What a training says after each batch."""

    epoch: int
    batch: int
    batches: int
    loss: float
    """Mean loss of the epoch so far, both twins averaged."""
    accuracy: float
    """Accuracy of the recurrent twin on the training batches of the epoch so far (adversarial where trained so)."""


def train_pair(
    pair: Pair,
    images: Images,
    labels: Labels,
    schedule: Schedule,
    *,
    adversary: Adversary | None = None,
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train a pair in place so that both twins classify well with the same parameters.

    The loss is the mean of the cross-entropies after the first and after the last sweep. After every step the atoms
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
            trainer.save(checkpoint, epoch + 1)
    pair.frame.update_step_sizes_()


class _Trainer:
    def __init__(self, pair: Pair, schedule: Schedule, adversary: Adversary | None, examples: int) -> None:
        self.pair, self.schedule, self.adversary = pair, schedule, adversary
        self.batches = math.ceil(examples / schedule.batch)
        self.device = next(pair.parameters()).device
        self.parameters = dict(pair.named_parameters())
        # One group a parameter: thresholds get a rate in units of what they are compared with (`calibrate`).
        self.optimizer = torch.optim.Adam([{"params": [p], "scale": 1.0} for p in self.parameters.values()])
        seed = torch.Generator().manual_seed(derive_seed(schedule.seed, "power iteration"))
        self.vectors = [torch.randn(1, *shape, generator=seed).to(self.device) for shape in pair.frame.code_shapes]

    def logits(self, images: Images) -> tuple[Logits, Logits]:
        """Logits after the first and after the last sweep, from one solve."""
        codes = list(iterate(DeepPursuit(sweeps=self.pair.sweeps), self.pair.frame, images))
        first, last = (self.pair.classify(codes[at][-1]) for at in (0, -1))
        return first, last

    def loss(self, images: Images, labels: Labels) -> tuple[Tensor, Logits]:
        first, last = self.logits(images)
        both = F.cross_entropy(first, labels, reduction="sum") + F.cross_entropy(last, labels, reduction="sum")
        return both / 2, last

    @torch.no_grad()
    def calibrate(self, images: Images) -> None:
        """Fit the scales to the data: a gain for unit codes at the head, threshold rates for each layer's signals."""
        codes = list(iterate(DeepPursuit(sweeps=self.pair.sweeps), self.pair.frame, images.to(self.device)))
        self.pair.gain.copy_(1 / _size(torch.cat([codes[0][-1], codes[-1][-1]])))
        scales = {
            f"frame.layers.{at}.threshold": _size(code) / layer.step_size
            for at, (code, layer) in enumerate(zip(codes[0], self.pair.frame.blocks))
        }
        for name, group in zip(self.parameters, self.optimizer.param_groups):
            group["scale"] = float(scales.get(name, 1.0))

    def run_epoch(self, epoch: int, images: Images, labels: Labels, report: Callable[[Progress], None]) -> None:
        generator = torch.Generator().manual_seed(derive_seed(self.schedule.seed, "order", epoch))
        order = torch.randperm(len(images), generator=generator)
        seen, total, right = 0, 0.0, 0
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
            report(Progress(epoch + 1, number + 1, self.batches, total / seen, right / seen))

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
            objective = objective + self.schedule.coherence * coherence_loss(self.pair.frame)
        objective.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.pair.frame.project_()
        self.follow_step_sizes()
        return float(loss.detach()), logits.detach()

    def rate(self, number: int) -> float:
        warm, all_steps = self.batches, self.batches * self.schedule.epochs
        if number < warm and self.schedule.epochs > 1:
            return self.schedule.learning_rate * (number + 1) / warm
        return self.schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * number / all_steps))

    @torch.no_grad()
    def follow_step_sizes(self) -> None:
        blocks = self.pair.frame.blocks
        for at, layer in enumerate(blocks):
            unit = self.vectors[at] / torch.linalg.vector_norm(self.vectors[at])
            self.vectors[at] = layer.operator.analysis(layer.operator.synthesis(unit))
            bound = torch.linalg.vector_norm(self.vectors[at]) + self.pair.frame.pull(at + 1)
            layer.step_size.copy_(1 / bound)

    def identity(self) -> str:
        """Say which training a checkpoint belongs to."""
        shapes = {name: list(tensor.shape) for name, tensor in self.parameters.items()}
        adversary = None if self.adversary is None else asdict(self.adversary)
        rows = [asdict(row) for row in self.pair.frame.rows]
        content = [asdict(self.schedule), adversary, shapes, rows, self.pair.sweeps, self.batches]
        return json.dumps(content, sort_keys=True)

    def save(self, path: Path, epochs: int) -> None:
        tensors = {f"pair.{name}": tensor for name, tensor in self.pair.state_dict().items()}
        tensors |= {f"vector.{at}": vector for at, vector in enumerate(self.vectors)}
        tensors["scales"] = torch.tensor([group["scale"] for group in self.optimizer.param_groups], dtype=torch.float64)
        for name, parameter in self.parameters.items():
            tensors |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        save_file(tensors, aside, metadata={"epochs": str(epochs), "training": self.identity()})
        aside.replace(path)

    def resume(self, path: Path | None) -> int:
        """Take up the state of a checkpoint, if there is one; return the epochs it has done."""
        if path is None or not path.exists():
            return 0
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise IntegrityError(f"{path} is damaged ({error}); delete it to start over") from error
        if metadata.get("training") != self.identity():
            raise IntegrityError(f"{path} belongs to another training; delete it or choose another folder")
        own = {name.removeprefix("pair."): t for name, t in tensors.items() if name.startswith("pair.")}
        self.pair.load_state_dict(own, strict=True)
        self.vectors = [tensors[f"vector.{at}"] for at in range(len(self.vectors))]
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
        return int(metadata["epochs"])


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
