"""Deep pursuit, with every penalty and on every structure, against convex solvers that share no code with it."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Lasso
from torch import Tensor

from robustframe.frames import Frame, build_frame
from robustframe.solvers import (
    ADMM,
    AcceleratedPursuit,
    DeepPursuit,
    LayeredPursuit,
    MultilayerPursuit,
    NonnegativeL1,
    Penalty,
    SignedL1,
    optimality,
    solve,
)

FRAMES = {
    "chain": ((8,), [{"atoms": 6}, {"atoms": 5}, {"atoms": 3}], "chain"),
    "residual": ((8,), [{"atoms": 6}, {"atoms": 6}, {"atoms": 6}], "residual"),
    "dense": ((8,), [{"atoms": 6}, {"atoms": 6}, {"atoms": 6}], "dense"),
    "conv residual": ((1, 4, 4), [{"filters": 1, "kernel": 3, "padding": 1}] * 3, "residual"),
}
LONG = {"sweeps": 5000, "tolerance": 1e-10}


def frame_of(kind: str) -> Frame:
    torch.manual_seed(2)
    frame = build_frame(*FRAMES[kind]).double()
    for layer in frame.blocks:
        layer.threshold.data.fill_(0.01)
    return frame


def images_of(frame: Frame, rows: int = 2) -> Tensor:
    return torch.rand(rows, *frame.in_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def matrix_of(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The frame as matrices A, E with misfit 1/2 ||E x - A w||^2, row by row from the definition in the mathematics."""
    sizes = [int(np.prod(frame.in_shape)), *(int(np.prod(shape)) for shape in frame.code_shapes)]
    shapes = [frame.in_shape, *frame.code_shapes]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = []
    for j, layer in enumerate(frame.blocks, start=1):
        eye = torch.eye(sizes[j], dtype=torch.float64).view(-1, *shapes[j])
        with torch.no_grad():
            block = layer.operator.synthesis(eye).flatten(1).T.numpy()
        row = np.zeros((len(block), offsets[-1]))
        row[:, offsets[j] : offsets[j + 1]] = block
        start = 0
        for k in layer.sources:
            row[start : start + sizes[k], offsets[k] : offsets[k + 1]] -= np.eye(sizes[k])
            start += sizes[k]
        rows.append(row)
        if layer.skip is not None:
            row = np.zeros((sizes[j], offsets[-1]))
            row[:, offsets[j] : offsets[j + 1]] = np.eye(sizes[j])
            padding = (sizes[j] - sizes[layer.skip]) // 2
            own = np.arange(sizes[layer.skip])
            row[padding + own, offsets[layer.skip] + own] -= 1
            rows.append(row)
    whole = np.concatenate(rows)
    return whole[:, sizes[0] :], -whole[:, : sizes[0]]


def independent(frame: Frame, x: np.ndarray, signed: bool) -> np.ndarray:
    """Minimise by L-BFGS-B over w >= 0, or over positive and negative parts."""
    matrix, spread = matrix_of(frame)
    target = spread @ x
    cost = np.concatenate(
        [
            np.broadcast_to(layer.threshold.detach().numpy(), shape).ravel()
            for layer, shape in zip(frame.blocks, frame.code_shapes)
        ]
    )
    if signed:
        matrix, cost = np.concatenate([matrix, -matrix], 1), np.concatenate([cost, cost])

    def value(w: np.ndarray) -> tuple[float, np.ndarray]:
        rest = matrix @ w - target
        return 0.5 * rest @ rest + cost @ w, matrix.T @ rest + cost

    start = np.zeros(len(cost))
    result = minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * len(cost),
        options={"ftol": 1e-18, "gtol": 1e-11, "maxiter": 20000, "maxfun": 40000, "maxcor": 30},
    )
    half = len(cost) // 2
    return result.x[:half] - result.x[half:] if signed else result.x


SOLVERS = {
    ("deep", "nonnegative"): DeepPursuit(**LONG),
    ("accelerated", "nonnegative"): AcceleratedPursuit(**LONG),
    ("accelerated", "signed"): AcceleratedPursuit(penalty=SignedL1(), **LONG),
    ("admm", "nonnegative"): ADMM(**LONG),
    ("admm", "signed"): ADMM(penalty=SignedL1(), **LONG),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize(("name", "penalty"), SOLVERS)
def test_every_pursuit_agrees_with_an_independent_convex_solver(kind: str, name: str, penalty: str) -> None:
    frame = frame_of(kind)
    x = images_of(frame)
    solver = SOLVERS[name, penalty]
    with torch.no_grad():
        solution = solve(solver, frame, x)
        rule = SignedL1() if penalty == "signed" else NonnegativeL1()
        assert (optimality(frame, x, solution.codes, rule) < 1e-7).all()
    found = torch.cat([code.flatten(1) for code in solution.codes], 1).numpy()
    for row in range(len(x)):
        expected = independent(frame, x[row].flatten().numpy(), penalty == "signed")
        assert (expected != 0).any()
        np.testing.assert_allclose(found[row], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("penalty", [NonnegativeL1(), SignedL1()], ids=["nonnegative", "signed"])
def test_a_single_layer_agrees_with_scikit_learn(penalty: Penalty) -> None:
    """With one layer every solver solves the lasso, overcomplete or not."""
    torch.manual_seed(0)
    frame = build_frame((12,), [{"atoms": 16}]).double()
    frame.blocks[0].threshold.data.fill_(0.1)
    x = images_of(frame) - 0.3
    lasso = Lasso(
        alpha=0.1 / 12, positive=isinstance(penalty, NonnegativeL1), fit_intercept=False, tol=1e-14, max_iter=100_000
    )
    atoms = frame.blocks[0].operator.weight.detach().numpy().T
    expected = np.stack([lasso.fit(atoms, row.numpy()).coef_ for row in x])
    assert 3 < (expected != 0).sum() < 30
    solvers = [
        AcceleratedPursuit(penalty=penalty, **LONG),
        AcceleratedPursuit(penalty=penalty, momentum=False, **LONG),
        ADMM(penalty=penalty, **LONG),
        LayeredPursuit(penalty=penalty, **LONG),
        LayeredPursuit(penalty=penalty, accelerated=True, **LONG),
        MultilayerPursuit(penalty=penalty, **LONG),
        MultilayerPursuit(penalty=penalty, accelerated=True, **LONG),
    ]
    for solver in solvers:
        with torch.no_grad():
            code = solve(solver, frame, x).codes[0]
        np.testing.assert_allclose(code.numpy(), expected, atol=1e-6, rtol=0, err_msg=str(solver))
