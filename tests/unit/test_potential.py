"""The deep frame potential and its minimum over parameters."""

import pytest
import torch

from robustframe.errors import InputError
from robustframe.frames import Frame, build_frame
from robustframe.frames.coherence import coherence
from robustframe.frames.potential import (
    closed_form_minimum,
    deep_frame_potential,
    minimum_potential,
    structural_nonzeros,
)

CHAIN = [{"atoms": atoms} for atoms in (30, 20, 40, 10)]
SMALL = {
    "residual": ((4,), "residual", [{"atoms": 6}] * 3),
    "dense": ((4,), "dense", [{"atoms": 5}] * 3),
    "padded": ((1, 4, 4), "chain", [{"filters": 2, "kernel": 3, "padding": 1}]),
}


def chain(seed: int = 0) -> Frame:
    torch.manual_seed(seed)
    return build_frame((12,), CHAIN)


def test_the_closed_form_of_a_dense_chain() -> None:
    frame = chain()
    assert structural_nonzeros(frame) == 6500
    value = closed_form_minimum(frame)
    assert value == pytest.approx(0.0094231, abs=5e-8)
    assert value * 6500 == pytest.approx(61.25, abs=1e-9)


def test_random_unit_atoms_are_above_the_minimum() -> None:
    values = [float(deep_frame_potential(chain(seed)).detach()) for seed in range(10)]
    # Independent unit atoms in d dimensions have squared inner products of mean 1 / d; 0.01248 was one draw.
    squares = (30 * 29 / 12 + 20 * 19 / 30 + 40 * 39 / 20) / 4 + 10 * 9 / 40 + (20 + 40) / 2 + 10
    assert sum(values) / 10 == pytest.approx(squares / 6500, rel=0.01)
    assert min(values) == pytest.approx(0.01248, rel=0.01)
    assert min(values) > 0.0094231


def test_optimisation_finds_the_closed_form_and_no_less() -> None:
    found = minimum_potential(chain(), optimise=True, restarts=2)
    assert found.method == "optimised"
    assert found.converged
    assert found.gradient <= 1e-4
    assert len(found.values) == 2
    assert found.value == min(found.values)
    assert found.value == pytest.approx(61.25 / 6500, rel=1e-7)
    assert found.value >= 61.25 / 6500 * (1 - 1e-10)


def test_a_chain_is_not_optimised_where_the_formula_holds() -> None:
    found = minimum_potential(chain())
    assert (found.method, found.converged, found.steps) == ("closed form", True, 0)
    assert found.value == closed_form_minimum(chain())


@pytest.mark.parametrize(
    "layers",
    [
        [{"filters": 6, "kernel": 3, "padding": 1}],
        [{"filters": 12, "kernel": 3, "stride": 2, "padding": 1}, {"filters": 3, "kernel": 3, "padding": 1}],
        [
            {"filters": 5, "kernel": 3, "padding": 1},
            {"filters": 7, "kernel": 3, "stride": 2, "padding": 1},
            {"atoms": 9},
        ],
    ],
)
def test_the_closed_form_of_periodic_convolutions(layers: list[dict[str, int]]) -> None:
    frame = build_frame((2, 6, 6), layers)
    expected = closed_form_minimum(frame, borders="periodic")
    assert expected is not None
    found = minimum_potential(frame, borders="periodic", optimise=True, restarts=1)
    assert found.converged
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_no_formula_is_claimed_where_there_is_none() -> None:
    padded = build_frame((2, 8, 8), [{"filters": 6, "kernel": 3, "padding": 1}])
    assert closed_form_minimum(padded) is None
    for name in ("residual", "dense"):
        shape, structure, layers = SMALL[name]
        assert closed_form_minimum(build_frame(shape, layers, structure), borders="periodic") is None


@pytest.mark.parametrize("name", SMALL)
def test_the_minimum_is_below_all_weights_and_no_restart_disagrees(name: str) -> None:
    shape, structure, layers = SMALL[name]
    torch.manual_seed(0)
    frame = build_frame(shape, layers, structure)
    before = {key: value.clone() for key, value in frame.state_dict().items()}
    found = minimum_potential(frame, restarts=2, tolerance=1e-3)
    assert found.converged
    assert found.values[0] == pytest.approx(found.values[1], rel=0.02)
    for seed in range(3):
        torch.manual_seed(seed)
        random = deep_frame_potential(build_frame(shape, layers, structure))
        assert found.value < float(random.detach())
    assert found.nonzeros == coherence(frame).nonzeros
    assert all(torch.equal(value, before[key]) for key, value in frame.state_dict().items())


def test_skips_make_the_gram_denser_and_its_minimum_lower() -> None:
    layers = [{"atoms": 6}] * 3
    frames = {structure: build_frame((4,), layers, structure) for structure in ("chain", "residual", "dense")}
    values = {name: minimum_potential(frame, restarts=1, tolerance=1e-3).value for name, frame in frames.items()}
    counts = {name: structural_nonzeros(frame) for name, frame in frames.items()}
    assert counts["chain"] < counts["residual"] < counts["dense"]
    assert values["chain"] > values["residual"]
    assert values["chain"] > values["dense"]


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    layers = [{"filters": 2, "kernel": 3, "padding": 1}, {"filters": 2, "kernel": 3, "padding": 1}, {"atoms": 3}]
    frame = build_frame((1, 4, 4), layers, "dense").double()
    weight = frame.blocks[1].operator.weight
    deep_frame_potential(frame).backward()
    assert weight.grad is not None
    step = 1e-6
    for at in ((0, 0, 0, 0), (1, 1, 2, 1), (0, 1, 1, 1)):
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                weight[at] += sign * step
                ends.append(float(deep_frame_potential(frame)))
                weight[at] -= sign * step
        assert float(weight.grad[at]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-10)


def test_running_out_of_steps_is_reported() -> None:
    found = minimum_potential(chain(), optimise=True, restarts=1, steps=1)
    assert not found.converged
    assert found.gradient > 1e-5
    assert found.steps == 1


def test_room_for_orthogonal_atoms_ends_at_zero() -> None:
    found = minimum_potential(build_frame((6,), [{"atoms": 5}]), optimise=True, restarts=1)
    assert found.converged
    assert found.value == pytest.approx(0, abs=1e-10)


def test_bad_input_gets_a_sentence() -> None:
    with pytest.raises(InputError, match="restarts >= 1"):
        minimum_potential(chain(), restarts=0)
    with pytest.raises(InputError, match="tolerance > 0, not 3, 500, 0"):
        minimum_potential(chain(), tolerance=0.0)
