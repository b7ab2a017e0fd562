"""Every attack on a part of the image, with radii of one's own, and on rotations and translations."""

import math
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import robustframe
from robustframe.attacks import ATTACKS, PGD, GridSearch, Universal, make_attack
from robustframe.attacks.parts import divide
from robustframe.draws import Draws
from robustframe.errors import InputError
from robustframe.spaces import Mask, Motion, Space, Window
from robustframe.threat import ThreatModel
from robustframe.types import Norm

EPS: dict[Norm, float] = {"l0": 5.0, "l1": 3.0, "l2": 1.0, "linf": 0.3}
SHORT = {"steps": 6, "queries": 40, "samples": 10, "searches": 2, "angles": 5, "shifts": 3}
CASES = [(use, norm) for use, cls in ATTACKS.items() if use != "grid" for norm in cls.norms]


class Seeing(nn.Module):
    """A small network that remembers every image it is shown."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layers = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(216, 4))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.layers(x)  # type: ignore[no-any-return]


def images(rows: int = 10) -> Tensor:
    x = torch.rand((rows, 2, 6, 6), generator=torch.Generator().manual_seed(5))
    x.flatten(1)[:, ::5] = 0.0
    return x


def short(use: str) -> robustframe.attacks.Attack:
    known = ATTACKS[use].__dataclass_fields__
    steps = {"steps": 60, "initial_weight": 10.0} if use == "cw" else {}
    return make_attack(use, {name: value for name, value in {**SHORT, **steps}.items() if name in known})


def checkered(rows: int) -> Tensor:
    """A mask of its own for each example, with equally many values."""
    generator = torch.Generator().manual_seed(7)
    places = torch.rand((rows, 72), generator=generator).argsort(1)[:, :20]
    return torch.zeros((rows, 72), dtype=torch.bool).scatter_(1, places, True).view(rows, 2, 6, 6)


def of_kind(kind: str, norm: Norm, x: Tensor) -> tuple[ThreatModel, Tensor]:
    """A threat, and where it lets values change."""
    free = torch.zeros(x.shape, dtype=torch.bool)
    if kind == "window":
        free[:, 1, 1:5, 2:] = True
        return ThreatModel(norm=norm, eps=EPS[norm], on="1,1:5,2:"), free
    if kind == "mask":
        free = checkered(len(x))
        return ThreatModel(norm=norm, eps=EPS[norm], on=Mask(free)), free
    (part,) = divide(ThreatModel(norm=norm, eps=EPS[norm]), x, eps=torch.tensor([0.4, 0.0]).view(2, 1, 1))
    free[:, 0] = True
    return part.threat, free


@pytest.mark.parametrize(("use", "norm"), CASES)
@pytest.mark.parametrize("kind", ["window", "mask", "radii"])
def test_nothing_changes_where_it_may_not(use: str, norm: Norm, kind: str) -> None:
    if kind == "radii" and norm != "linf":
        pytest.skip("radii of values are for linf")
    if kind != "window" and use == "universal":
        apart, _ = of_kind(kind, norm, images())
        with pytest.raises(InputError, match="do not have the same mask or radius here"):
            short(use).run(Seeing(), images(), torch.zeros(10).long(), apart, Draws((0,), 10))
        return
    torch.set_num_threads(1)
    model, x = Seeing(), images()
    y = model(x).argmax(1)
    threat, free = of_kind(kind, norm, x)
    model.seen.clear()
    result = short(use).run(model, x, y, threat, Draws((0, use), len(x)), known_correct=True)
    shown = torch.cat(model.seen)
    clean = x.unsqueeze(1)
    same = ((shown == clean) | free.unsqueeze(1)).flatten(2).all(2)
    # Rows that fill a batch up to its least size are black.
    assert (same.any(0) | (shown == 0).flatten(1).all(1)).all()
    assert result.success.any()
    assert torch.equal(model(result.adversarial).argmax(1) != y, result.success)
    assert ((result.adversarial == x) | free).all()
    assert threat.contains(x, result.adversarial).all()
    moved = (result.adversarial.double() - x.double()).flatten(1)
    assert float(torch.linalg.vector_norm(moved, ord=float(norm[1:]), dim=1).max()) <= threat.eps + 1e-5
    torch.testing.assert_close(threat.distance(x, result.adversarial), result.distance)


@pytest.mark.parametrize("kind", ["window", "mask", "radii"])
def test_an_image_that_differs_elsewhere_is_not_allowed(kind: str) -> None:
    x = images()
    threat, free = of_kind(kind, "linf", x)
    inside = torch.where(free, (x + 0.1).clamp(0, 1), x)
    assert threat.contains(x, inside).all()
    # By the last bit of one value that may not change.
    place = (~free).flatten(1).float().argmax(1, keepdim=True)
    other = inside.flatten(1).scatter(1, place, inside.flatten(1).gather(1, place) + 1e-6).view_as(x)
    assert not threat.contains(x, other).any()
    assert not threat.contains(x, torch.where(free, x + 0.5, x).clamp(0, 1)).all()


@pytest.mark.parametrize("use", ["pgd", "apgd", "square", "fab-t"])
@pytest.mark.parametrize("kind", ["window", "mask", "radii"])
def test_neither_the_batch_nor_other_rows_matter(use: str, kind: str) -> None:
    torch.set_num_threads(1)
    model, x = Seeing(), images()
    y = model(x).argmax(1)
    threat, _ = of_kind(kind, "linf", x)
    whole = short(use).run(model, x, y, threat, Draws((0, use), len(x)), known_correct=True)
    rows = torch.tensor([1, 4, 8])
    some = short(use).run(model, x[rows], y[rows], threat.of(rows), Draws((0, use), len(x), rows), batch_size=16,
                          known_correct=True)  # fmt: skip
    assert torch.equal(some.success, whole.success[rows])
    torch.testing.assert_close(some.adversarial, whole.adversarial[rows], rtol=0, atol=1e-6)


def linear(weight: Tensor, bias: float) -> nn.Module:
    """Two classes, told apart by a line: class 0 where weight * x + bias is above 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weight), 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weight, torch.zeros_like(weight)]))
        model[1].bias.copy_(torch.tensor([bias, 0.0]))
    return model


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0), ("l1", math.inf)])
@pytest.mark.parametrize("kind", ["window", "mask"])
def test_the_least_radius_is_that_of_the_part(norm: Norm, dual: float, kind: str) -> None:
    """Far from the faces of the box the distance to a line is the margin over the dual norm of what may change."""
    torch.manual_seed(0)
    weight = torch.randn(72) / 6
    x = torch.full((1, 2, 6, 6), 0.5)
    model = linear(weight, 0.05 - float(weight.sum()) / 2)
    space: Space = Window("0,2:4,:") if kind == "window" else Mask(checkered(1))
    free = space.image(torch.zeros_like(x), torch.ones_like(space.enter(x))).flatten().bool()
    least = 0.05 / float(torch.linalg.vector_norm(weight[free], ord=dual))
    y = torch.zeros(1, dtype=torch.long)
    for eps, breaks in ((0.98 * least, False), (1.02 * least, True)):
        threat = ThreatModel(norm=norm, eps=eps, on=space)
        result = make_attack("fab", {"steps": 20}).run(model, x, y, threat, Draws((0,), 1))
        assert bool(result.success) is breaks


def test_radii_of_values_are_each_used_up() -> None:
    weight, x = torch.tensor([1.0, -1.0, 1.0, 1.0]), torch.tensor([[0.5, 0.5, 0.02, 0.9]])
    radii = torch.tensor([[0.1, 0.2, 0.05, 0.0]])
    # The third value can fall to 0 alone, by 0.02.
    drop = 0.1 + 0.2 + 0.02
    y = torch.zeros(1, dtype=torch.long)
    for margin, breaks in ((drop + 0.005, False), (drop - 0.005, True)):
        model = linear(weight, margin - float((weight * x).sum()))
        found = robustframe.attack(model, x, y, "pgd", "linf:0.3", eps=radii)
        assert bool(found.success) is breaks
    assert (found.images - x).abs().max() <= 0.2 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_each_example_has_its_radius(norm: str) -> None:
    x = torch.full((4, 8), 0.5)
    model = linear(torch.ones(8), 0.1 - 4.0)
    least = {"linf": 0.1 / 8, "l2": 0.1 / 8**0.5, "l1": 0.1}[norm]
    radii = [0.9 * least, 1.1 * least, 0.5 * least, 1.1 * least]
    found = robustframe.attack(model, x, torch.zeros(4, dtype=torch.long), "apgd-ce", f"{norm}:0.4", eps=radii)
    assert found.success.tolist() == [False, True, False, True]
    assert (found.distance <= torch.tensor(radii, dtype=torch.float64) + 1e-6).all()


def test_masks_that_allow_other_numbers_of_values_are_attacked_apart() -> None:
    x, mask = torch.full((3, 8), 0.5), torch.zeros((3, 8), dtype=torch.bool)
    mask[0, :2], mask[1, :6], mask[2, 3:] = True, True, True
    model = linear(torch.ones(8), 0.4 - 4.0)
    found = robustframe.attack(model, x, torch.zeros(3, dtype=torch.long), "pgd", "linf:0.1", mask=mask)
    assert found.success.tolist() == [False, True, True]
    assert ((found.images == x) | mask).all()


def test_a_mask_that_is_a_rectangle_is_one() -> None:
    mask = torch.zeros(2, 6, 6, dtype=torch.bool)
    mask[1, 2:5, 1:] = True
    (part,) = divide(ThreatModel(norm="l2", eps=1.0), images(), mask=mask)
    assert part.threat.on == Window("1:2,2:5,1:6")
    mask[0, 0, 0] = True
    assert isinstance(divide(ThreatModel(norm="l2", eps=1.0), images(), mask=mask)[0].threat.on, Mask)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mask": torch.ones(5, 5)}, r"a mask of shape \(5, 5\) fits neither one image, \(2, 6, 6\), nor all"),
        ({"mask": torch.zeros(2, 6, 6)}, "the mask allows no value to change"),
        ({"mask": torch.arange(720).view(10, 2, 6, 6) >= 72}, "the mask of example 0 allows no value"),
        ({"mask": torch.full((6, 6), 0.5)}, "other than 0 and 1"),
        ({"mask": "all"}, "the mask is str"),
        ({"eps": torch.ones(9)}, r"eps of shape \(9,\) fits neither the 10 examples"),
        ({"eps": torch.ones(9), "threat": "l2:1"}, "give one for each of the 10 examples"),
        ({"eps": torch.full((2, 1, 1), 0.1), "threat": "l2:1"}, "radii of single values are for linf"),
        ({"eps": torch.zeros(10), "threat": "l2:1"}, "the radius of example 0 is 0"),
        ({"eps": torch.zeros(10)}, "eps is 0 everywhere"),
        ({"eps": torch.full((10,), -0.1)}, "finite and at least 0"),
        ({"eps": torch.ones(10), "threat": "linf:0.1 in uint8"}, "need not be saved"),
        ({"mask": torch.ones(6, 6), "threat": "linf:0.1 on 2:4,2:4"}, "leave out mask and eps"),
    ],
)
def test_what_fits_nothing_is_refused(options: dict[str, object], says: str) -> None:
    asked: dict[str, object] = {"threat": "linf:0.1", **options}
    with pytest.raises(InputError, match=says):
        robustframe.attack(Seeing(), images(), torch.zeros(10, dtype=torch.long), "pgd", **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("linf:0.1 on the left", "what may change, 'on the left', is not known; write 'on 4:24,4:24'"),
        ("linf:0.1 on 3:x", "is not known"),
        ("linf:1 to next on rotation:30", r"'on \.\.\.' stands before 'to \.\.\.'"),
        ("linf:0.1 in uint8 on 2:4,2:4", r"'on \.\.\.' stands before"),
        ("linf:0.1 on rotation:30,rotation:20", "is not known"),
        ("linf:1 on rotation:190", "from 0 to 180 degrees"),
        ("linf:1 on rotation:0,shift:0", "one of them above 0"),
        ("l2:1 on rotation:30", "for linf with an eps of at most 1"),
        ("linf:1 on rotation:30 in uint8", "between steps of 1/255"),
    ],
)
def test_texts_that_say_nothing_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ThreatModel.parse(text)


@pytest.mark.parametrize(
    ("on", "shape", "says"),
    [
        ("2:9,2:4", (2, 6, 6), "2:9 is no range of 0:6"),
        ("4:4,:", (2, 6, 6), "4:4 is no range"),
        ("0,0,0,0", (2, 6, 6), "4 ranges for images of 2 x 6 x 6"),
        ("rotation:30", (72,), r"for images of shape \(c, h, w\)"),
        ("shift:6", (2, 6, 6), "out of sight"),
    ],
)
def test_what_does_not_lie_in_the_images_is_refused(on: str, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ThreatModel(norm="linf", eps=0.5, on=on).check_shape(shape)


def test_a_threat_reads_back_as_it_is_written() -> None:
    for text in ("linf:8/255 on 4:24,4:24", "l2:0.5 on 0,:,: to next in uint8", "linf:1 on rotation:30,shift:3"):
        threat = ThreatModel.parse(text)
        assert threat.words == text
        assert ThreatModel.parse(threat._words("8/255")).kind == threat.kind
    assert ThreatModel.parse("linf:0.1 on  4:24, 4:24").kind == "linf on 4:24,4:24"
    with pytest.raises(InputError, match=r"no text states the mask of this threat; robustframe\.attack takes it"):
        _ = ThreatModel(norm="linf", eps=0.1, on=Mask(torch.ones(1, 3, dtype=torch.bool))).words


# Rotations and translations.


def test_a_quarter_turn_and_a_pixel_are_what_they_say() -> None:
    x = images(3)
    turned = Motion(rotation=90.0).image(x, torch.ones(3, 1))
    torch.testing.assert_close(turned, torch.rot90(x, -1, (2, 3)), rtol=0, atol=1e-5)
    moved = Motion(shift=2.0).image(x, torch.tensor([[1.0, -0.5]]).expand(3, 2))
    expected = torch.zeros_like(x)
    expected[:, :, 2:, :-1] = x[:, :, :-2, 1:]
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
    assert torch.equal(Motion(rotation=30.0, shift=2.0).image(x, torch.zeros(3, 3)), x)


def test_sides_of_other_lengths_are_turned_without_shear() -> None:
    x = torch.zeros(1, 1, 9, 15)
    x[:, :, 4, 4:11] = 1.0
    turned = Motion(rotation=90.0).image(x, torch.ones(1, 1))
    expected = torch.zeros_like(x)
    expected[:, :, 1:8, 7] = 1.0
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


def test_gradients_go_through_motions() -> None:
    torch.manual_seed(0)
    x, weight = images(1).double(), torch.randn(1, 2, 6, 6, dtype=torch.float64)
    space = Motion(rotation=40.0, shift=1.5)
    numbers = torch.tensor([[0.3, -0.4, 0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: (space.image(x, u) * weight).sum(), numbers)
    still = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((space.image(x, still) * weight).sum(), still)
    assert slope.abs().min() > 0


class Upright(nn.Module):
    """Says whether what is bright lies above the middle."""

    def forward(self, x: Tensor) -> Tensor:
        above = (x * torch.arange(4.0, -5.0, -1.0).view(9, 1)).flatten(1).sum(1)
        return torch.stack([above, torch.zeros_like(above)], 1)


@pytest.mark.parametrize("use", ["grid", "pgd", "apgd", "random-search", "square", "hopskipjump", "spsa", "universal"])
def test_a_bar_is_turned_upside_down_and_no_further_than_allowed(use: str) -> None:
    x = torch.zeros(2, 1, 9, 9)
    x[:, :, 1, 3:6] = 1.0
    y = torch.zeros(2, dtype=torch.long)
    # It lies below the middle from 90 degrees on.
    for rotation, breaks in ((80, False), (120, True)):
        threat = ThreatModel(norm="linf", eps=1.0, on=f"rotation:{rotation}")
        # A step of PGD may lead back and forth between the pixels.
        attack = make_attack(use, {"restarts": 8} if use == "pgd" else {})
        result = attack.run(Upright(), x, y, threat, Draws((0, use), 2))
        assert result.success.all() if breaks else not result.success.any()
        assert result.numbers is not None
        assert threat.contains(x, result.adversarial, result.numbers).all()
        assert not threat.contains(x, result.adversarial + 0.01, result.numbers).any()
        assert not threat.contains(x, result.adversarial, 2 + result.numbers).any()
        with pytest.raises(InputError, match="an image does not tell how it was moved"):
            threat.contains(x, result.adversarial)


def test_a_grid_is_tried_whole() -> None:
    class Unmoved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], 1)

    y = torch.zeros(3, dtype=torch.long)
    for on, count in (("rotation:30,shift:2", 7 * 9), ("rotation:30", 7), ("shift:2", 9)):
        threat = ThreatModel(norm="linf", eps=0.5, on=on)
        attack = GridSearch(angles=7, shifts=3)
        result = attack.run(Unmoved(), images(3), y, threat, Draws((0,), 3), known_correct=True)
        assert result.forwards.tolist() == [count] * 3
    with pytest.raises(InputError, match=r"grid tries rotations and translations, of which linf:0\.1 has none"):
        robustframe.attack(Unmoved(), images(3), y, "grid", "linf:0.1")


@pytest.mark.parametrize("on", ["rotation:30", ""])
def test_attacks_of_torchattacks_take_images_alone(on: str) -> None:
    x, y = images(3), torch.zeros(3, dtype=torch.long)
    (part,) = divide(ThreatModel(norm="linf", eps=0.1), x, mask=checkered(3)) if not on else [None]
    threat = ThreatModel(norm="linf", eps=0.1, on=on) if part is None else part.threat
    with pytest.raises(InputError, match=r"torchattacks:PGD takes images, and under linf:0\.1 on .* there are none"):
        make_attack("torchattacks:PGD", {}).run(Seeing(), x, y, threat, Draws((0,), 3))
    window = ThreatModel(norm="linf", eps=0.1, on="1:5,1:5")
    assert make_attack("torchattacks:PGD", {}).run(Seeing(), x, y, window, Draws((0,), 3)).adversarial.shape == x.shape


# One perturbation for all.


def test_a_universal_perturbation_is_one() -> None:
    model, x = Seeing(), images(40)
    y = model(x).argmax(1)
    threat = ThreatModel(norm="linf", eps=0.3)
    attack = Universal(steps=30)
    result = attack.run(model, x, y, threat, Draws((0,), 40), known_correct=True)
    delta = attack.perturbation(model, x, y, threat)
    assert delta.abs().max() <= 0.3 + 1e-6
    assert torch.equal(result.adversarial[result.success], (x + delta).clamp(0, 1)[result.success])
    fooled = model((x + delta).clamp(0, 1)).argmax(1) != y
    assert torch.equal(fooled, result.success)
    each = PGD(steps=20).run(model, x, y, threat, Draws((0,), 40), known_correct=True)
    assert 5 <= int(fooled.sum()) <= int(each.success.sum())
    noise = torch.randint(2, delta.shape, generator=torch.Generator().manual_seed(0)) * 0.6 - 0.3
    assert int(fooled.sum()) > int((model((x + noise).clamp(0, 1)).argmax(1) != y).sum())


def test_the_universal_perturbation_of_a_line_is_known() -> None:
    weight = torch.tensor([3.0, -1.0, 2.0, 0.5])
    x = 0.4 + 0.2 * torch.rand((50, 4), generator=torch.Generator().manual_seed(0))
    model = linear(weight, 0.3 - float((x @ weight).min()))
    y = torch.zeros(50, dtype=torch.long)
    most = float(model(x).detach()[:, 0].max())
    for eps, broken in ((1.05 * most / 6.5, 50), (0.25 / 6.5, 0)):
        threat = ThreatModel(norm="linf", eps=min(eps, 0.4))
        result = Universal().run(model, x, y, threat, Draws((0,), 50), known_correct=True)
        assert int(result.success.sum()) == broken or eps > 0.4


# Through a run and back.

THREATS = ["linf:0.2", "linf:0.4 on 2:6,2:6", "linf:1 on rotation:30,shift:1", "linf:0.5 on rotation:30,shift:1"]


@pytest.fixture(scope="module")
def run(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> robustframe.Run:
    recipe = tmp_path_factory.mktemp("spaces") / "where.toml"
    threats = ", ".join(f'"{each}"' for each in THREATS)
    recipe.write_text(
        f'schema = 1\nname = "where"\nseed = 0\nthreats = [{threats}]\nbattery = ["quick@1"]\n'
        f'data = {{ use = "digits", count = 40 }}\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    return robustframe.evaluate_recipe(recipe, out=recipe.parent / "run", report=robustframe.silent)


def test_a_run_says_where_and_replays_it(run: robustframe.Run) -> None:
    assert [each.threat for each in run.results[:4]] == THREATS
    robust = {
        result.threat: result.robust_correct for result in run.results if result.classifier.endswith("feedforward")
    }
    assert robust[THREATS[2]] <= robust[THREATS[3]]
    found = run.verify()
    assert found.ok, str(found)
    assert "are not checked" in str(run.table())
    rows = {result.threat: result for result in run.results}
    assert rows[THREATS[0]].diagnosis is not None
    assert rows[THREATS[1]].diagnosis is None
    assert rows[THREATS[2]].certified_correct is None
    assert {"linf", "linf on 2:6,2:6", "linf on rotation:30,shift:1"} <= {each.kind for each in run.curves()}


def test_a_moved_image_is_sampled_to_the_last_bit_of_its_pixels() -> None:
    """Another machine, which rounds otherwise, must find the same image."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((8, 3, 48, 32), generator=generator)
    numbers = 2 * torch.rand((8, 3), generator=generator) - 1
    motion = Motion(rotation=30.0, shift=3.0)
    exact = motion.image(x.double(), numbers.double())
    torch.testing.assert_close(motion.image(x, numbers).double(), exact, rtol=0, atol=1e-7)


def test_places_that_differ_in_punctuation_alone_have_folders_of_their_own(tiny_card: Path, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(
        'schema = 1\nname = "two"\nseed = 0\nthreats = ["linf:1 on 0:3,5:7", "linf:1 on 0,3:5,7", '
        '"linf:1 on rotation:60 to next"]\nbattery = ["oscillating.toml"]\ndiagnose = false\n'
        f'data = {{ use = "digits", count = 20 }}\n[[model]]\nuse = "card:{tiny_card}"\n'
    )
    (tmp_path / "oscillating.toml").write_text(
        'schema = 1\nname = "oscillating"\nversion = "1"\n[[attack]]\nuse = "pgd"\nsteps = 30\n'
    )
    run = robustframe.evaluate_recipe(tmp_path / "two.toml", out=tmp_path / "run", report=robustframe.silent)
    # PGD ends where it comes back, as among three numbers it soon does: few passes are no sign of an attack left out.
    stopped = [
        table for path in run.folder.glob("units/*/*rotation*/*/*.parquet") for table in [pl.read_parquet(path)]
        if len(table.filter(~pl.col("success") & (pl.col("forwards") < 30)))
    ]  # fmt: skip
    assert stopped
    found = run.verify()
    assert found.ok, str(found)


def test_numbers_of_another_width_are_a_finding(run: robustframe.Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    path = next((tmp_path / "run").glob("units/*/linf_1_on_rotation*/*/*.safetensors"))
    tensors = load_file(path)
    save_file({**tensors, "numbers": tensors["numbers"][:, :1].contiguous()}, path)
    found = robustframe.open_run(tmp_path / "run").verify()
    assert "it holds 1 numbers of each image, 3 say how it was moved" in str(found)
