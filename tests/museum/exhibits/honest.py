"""Honest models: whatever is unusual about them, their gradients are derivatives and their answers are their own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from exhibits import nets
from exhibits.backward import borrow
from exhibits.broken.detached import gated, streams
from exhibits.broken.solvers import equilibrium
from exhibits.broken.stateful import normalised
from exhibits.broken.straight import pooled
from exhibits.nets import Around, Front, Step, convolutions, dense, fit, pair, practice, trained
from exhibits.pieces import HONEST, Honest, honest


@honest("A linear model.")
def linear() -> nn.Module:
    return nets.linear()


@honest("One hidden layer.")
@trained
def one_hidden_layer() -> nn.Module:
    return fit(lambda: dense(64), epochs=3)


@honest("Two hidden layers: the undefended net of most exhibits.")
def net() -> nn.Module:
    return nets.net()


@honest("Five hidden layers.")
@trained
def deep() -> nn.Module:
    return fit(lambda: dense(48, 48, 48, 48, 48), epochs=3)


@honest("Strided convolutions.")
def strided() -> nn.Module:
    return nets.other()


@honest("Batch norm with stored statistics.")
def batch_norm() -> nn.Module:
    return normalised()


@honest("Layer norm between dense layers.")
@trained
def layer_norm() -> nn.Module:
    def make() -> nn.Module:
        first, *rest = dense(64, 64)
        return nn.Sequential(first, nn.LayerNorm(784), *rest[:2], nn.LayerNorm(64), *rest[2:])

    return fit(make, epochs=2)


@honest("Group norm between convolutions.")
@trained
def group_norm() -> nn.Module:
    return fit(lambda: convolutions(norm=lambda channels: nn.GroupNorm(4, channels)), epochs=1)


@honest("Instance norm between convolutions.")
@trained
def instance_norm() -> nn.Module:
    return fit(lambda: convolutions(norm=lambda channels: nn.InstanceNorm2d(channels, affine=True)), epochs=1)


class Residual(nn.Module):
    """x + f(x) with two convolutions and batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


@honest("A small residual net with batch norm.")
@trained
def resnet() -> nn.Module:
    def make() -> nn.Module:
        stem = nn.Conv2d(1, 12, 5, stride=4, padding=2)
        return nn.Sequential(stem, nn.ReLU(), Residual(12), Residual(12), nn.Flatten(), nn.Linear(12 * 49, 10))

    return fit(make, epochs=1)


@honest("Dense residual blocks without norm.")
@trained
def residual() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return x + 0.5 * self.outer(self.inner(x).relu())

    return fit(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 64), Block(), Block(), nn.Linear(64, 10)), epochs=3)


class Attention(nn.Module):
    """A transformer's block on 16 patches."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mix(self.first(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts.unbind(0))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(self.second(x))


class Transformer(nn.Module):
    """A small vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.places = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(Attention(width), Attention(width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(tokens).mean(1))


@honest("A small vision transformer.")
@trained
def vit() -> nn.Module:
    return fit(Transformer, epochs=2)


@honest("Patches mixed by dense layers (MLP-Mixer: Tolstikhin et al., 2021, arXiv:2105.01601).")
@trained
def mixer() -> nn.Module:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.tokens = (
                nn.Conv2d(1, 24, 7, stride=7),
                nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)),
            )
            self.channels, self.head = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)), nn.Linear(24, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2)
            x = (x + self.tokens(x)).transpose(1, 2)
            return self.head((x + self.channels(x)).mean(1))

    return fit(Mixer, epochs=2)


@honest("Max pooling of pixels.")
def max_pooling() -> nn.Module:
    return pooled()


@honest("Max pooling between convolutions.")
@trained
def max_pooled_features() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 49, 10)
        )

    return fit(make, epochs=1)


@honest("Average pooling.")
@trained
def average_pooling() -> nn.Module:
    return fit(lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 10)))


@honest("Global average pooling in place of a dense head.")
@trained
def global_pooling() -> nn.Module:
    def make() -> nn.Module:
        layers = (
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
        )
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    return fit(make, epochs=1, rate=1e-2)


@honest("Depthwise and pointwise convolutions.")
@trained
def depthwise() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=4), nn.GELU(), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1),
            nn.GELU(), nn.Flatten(), nn.Linear(16 * 49, 10),
        )  # fmt: skip

    return fit(make, epochs=2)


@honest("Hyperbolic tangents.")
@trained
def tanh() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=nn.Tanh), epochs=2)


@honest("Logistic units.")
@trained
def sigmoid() -> nn.Module:
    return fit(lambda: dense(64, activation=nn.Sigmoid), epochs=2, rate=1e-2)


@honest("SiLU units.")
@trained
def silu() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=nn.SiLU), epochs=2)


@honest("GELU units.")
@trained
def gelu() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=nn.GELU), epochs=2)


@honest("Softplus units.")
@trained
def softplus() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=nn.Softplus), epochs=2)


@honest("Leaky ReLUs.")
@trained
def leaky_relu() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=nn.LeakyReLU), epochs=2)


@honest("ELU units.")
@trained
def elu() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=nn.ELU), epochs=2)


@honest("Sines of moderate frequency (Sitzmann et al., 2020, arXiv:2006.09661).")
@trained
def sine() -> nn.Module:
    return fit(lambda: dense(64, activation=lambda: Step(torch.sin)), epochs=2)


@honest("Maxima of pairs of units (Goodfellow et al., 2013, arXiv:1302.4389).")
@trained
def maxout() -> nn.Module:
    def make() -> nn.Module:
        pairs = Step(lambda x: x.unflatten(1, (-1, 2)).amax(2))
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), pairs, nn.Linear(64, 10))

    return fit(make, epochs=2)


@honest("Units and their gates, both differentiated.")
def gates() -> nn.Module:
    return gated()


@honest("Two streams of two resolutions, both differentiated.")
def two_streams() -> nn.Module:
    return streams()


@honest("Channels weighted by their own means (Hu et al., 2018, arXiv:1709.01507).")
@trained
def squeeze_and_excite() -> nn.Module:
    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.weights, self.head = (
                nn.Conv2d(1, 12, 5, stride=3),
                nn.Linear(12, 12),
                nn.Linear(12 * 64, 10),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x).relu()
            return self.head((x * self.weights(x.mean((2, 3))).sigmoid()[:, :, None, None]).flatten(1))

    return fit(Excited, epochs=2)


@honest("Random features of which only the head is trained (Rahimi and Recht, 2007).")
@trained
def random_features() -> nn.Module:
    return fit(lambda: dense(256), epochs=2, frozen=("1.weight", "1.bias"))


@honest("Distances to a mean image a class, negative.")
@trained
def prototypes() -> nn.Module:
    images, labels = practice()
    means = torch.stack([images[labels == label].mean(0).flatten() for label in range(10)])

    def run(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return 2 * flat @ means.to(x).T - means.to(x).square().sum(1) - flat.square().sum(1, keepdim=True)

    return Around(run)


@honest("Radial basis functions around known images, with a trained head.")
@trained
def radial() -> nn.Module:
    centres = practice()[0][:128].flatten(1)

    def near(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        distance = flat.square().sum(1, keepdim=True) - 2 * flat @ centres.to(x).T + centres.to(x).square().sum(1)
        return torch.exp(-distance / 60)

    return fit(lambda: nn.Sequential(Step(near), nn.Linear(128, 10)), epochs=2, rate=5e-2)


@honest("Rows read one after the other by a gated recurrent net.")
@trained
def rows() -> nn.Module:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.update, self.turn, self.head = (
                nn.Linear(28 * 4 + 32, 32),
                nn.Linear(28 * 4 + 32, 32),
                nn.Linear(32, 10),
            )

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), 32)
            for part in x.flatten(1).split(28 * 4, 1):
                seen = torch.cat([part, state], 1)
                keep = self.turn(seen).sigmoid()
                state = keep * state + (1 - keep) * self.update(seen).tanh()
            return self.head(state)

    return fit(Rows, epochs=2, rate=1e-2)


@honest("An equilibrium, differentiated through its iteration.")
def unrolled_equilibrium() -> nn.Module:
    return equilibrium()


def three() -> tuple[nn.Module, nn.Module, nn.Module]:
    """The members of the ensembles."""
    return nets.net(), nets.other(), nets.sibling()


@honest("Logits of three nets, averaged.")
def ensemble() -> nn.Module:
    return Around(*three(), lambda first, second, third, x: (first(x) + second(x) + third(x)) / 3)


@honest("The logarithm of the mean of three nets' probabilities.")
def mean_probabilities() -> nn.Module:
    def run(first: nn.Module, second: nn.Module, third: nn.Module, x: Tensor) -> Tensor:
        return torch.stack([member(x).log_softmax(1) for member in (first, second, third)]).logsumexp(0)

    return Around(*three(), run)


@honest("The mean of the image's logits and its mirror image's.")
def mirrored() -> nn.Module:
    return Around(nets.net(), lambda body, x: (body(x) + body(x.flip(-1))) / 2)


@honest("Weights rounded to 16 levels.")
@trained
def quantised_weights() -> nn.Module:
    body = fit(lambda: dense(64, 64), epochs=4)
    for weight in body.parameters():
        step = weight.abs().max() / 8
        weight.copy_((weight / step).round() * step)
    return body


class Quantised(nn.Module):
    """Units rounded to multiples of a 256th, with the gradient of what is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return borrow((256 * x).round() / 256, x)


@honest("Hidden units rounded to eight bits, with an honest straight-through gradient.", step=0.5)
@trained
def quantised_units() -> nn.Module:
    return fit(lambda: dense(64, 64, activation=Quantised), epochs=2)


@honest("The image rounded to 256 levels, with an honest straight-through gradient.", step=0.5)
def quantised_image() -> nn.Module:
    return Around(nets.net(), lambda body, x: body(borrow((255 * x).round() / 255, x)))


@honest("Logits times 100.")
def logits_times_100() -> nn.Module:
    return Around(nets.net(), lambda body, x: 100 * body(x))


@honest("Logits times 0.01.")
def logits_times_001() -> nn.Module:
    return Around(nets.net(), lambda body, x: 0.01 * body(x))


@honest("Logarithms of probabilities.")
def log_probabilities() -> nn.Module:
    return Around(nets.net(), lambda body, x: body(x).log_softmax(1))


@honest("Two classes.", data="two-classes")
@trained
def two_classes() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 2))

    return fit(make, classes=2, epochs=4)


@honest("Computes in float64.")
@trained
def double_precision() -> nn.Module:
    return Around(fit(lambda: dense(64, 64), epochs=4).double(), lambda body, x: body(x.double()).to(x))


@honest("Adversarially trained in linf at 0.1.", threat="linf:0.1")
@trained
def adversarially_trained() -> nn.Module:
    return fit(lambda: dense(64, 64), epochs=4, eps=0.1)


@honest("Trained on noisy images.")
@trained
def noise_trained() -> nn.Module:
    return fit(lambda: dense(64, 64), epochs=3, noise=0.2)


@honest("Dropout in training only.")
@trained
def dropout_trained() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))

    return fit(make)


@honest("Images normalised by a mean and a standard deviation.")
def normalised_images() -> nn.Module:
    return Front(Step(lambda x: (x - 0.2860) / 0.3530), standardised())


@trained
def standardised() -> nn.Module:
    return fit(lambda: Front(Step(lambda x: (x - 0.2860) / 0.3530), dense(64, 64)), epochs=2).body


@honest("Every image divided by its own contrast, with all of its gradient.")
@trained
def contrast() -> nn.Module:
    def even(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 0.1)

    return fit(lambda: Front(Step(even), dense(64, 64)), epochs=2)


@honest("Images enlarged and made smaller again, bilinearly.")
def resized() -> nn.Module:
    def there_and_back(x: Tensor) -> Tensor:
        large = F.interpolate(x, size=(40, 40), mode="bilinear")
        return F.interpolate(large, size=(28, 28), mode="bilinear")

    return Front(Step(there_and_back), nets.net())


@honest("Images blurred by a mean of 3 x 3 pixels, with all of its gradient.")
def blurred() -> nn.Module:
    return Front(nn.AvgPool2d(3, stride=1, padding=1), nets.net())


@honest("Weights held as a direction and a length.")
@trained
def normalised_weights() -> nn.Module:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(784, 64)), nn.ReLU(), nn.Linear(64, 10))

    return fit(make)


@honest("Images attacked in l2.", threat="l2:1")
def net_in_l2() -> nn.Module:
    return nets.net()


ZOO = (
    "digits-fc2-64",
    "digits-fc2-8",
    "fmnist-chain3-16-last",
    "fmnist-chain3-16-linf",
    "fmnist-chain3-16-untied",
    "fmnist-chain3-6",
    "fmnist-chain3-linf",
    "fmnist-chain5-16-linf",
    "fmnist-chain3-128-recurrent",
    "fmnist-dense3-16-l2",
    "fmnist-dense3-16-linf",
    "fmnist-dense7-16",
    "fmnist-fc3-200-residual",
    "fmnist-residual3-16-linf",
    "fmnist-residual5-16-linf",
    "fmnist-residual5-16-one",
)
"""Pairs of the zoo: of every structure and training, all of linf among them. By name, as the zoo grows."""

for _name in ZOO:
    HONEST.append(
        Honest(
            f"zoo:{_name}",
            f"Both twins of {_name}.",
            lambda name=_name: pair(name),
            data="digits" if _name.startswith("digits") else "fashion-mnist",
            threat="linf:0.05",
        )
    )
