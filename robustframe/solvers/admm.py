"""ADMM on the objective of the whole frame."""

from dataclasses import dataclass

from torch import Tensor

from robustframe.errors import InputError
from robustframe.frames import Frame
from robustframe.solvers.penalties import smooth_gradient
from robustframe.solvers.proximal import ProximalSolver, Size, descend, feed_forward, zero_codes
from robustframe.types import Images


@dataclass(frozen=True)
class _Split:
    sizes: tuple[Size, ...]
    smooth: tuple[Tensor, ...] = ()
    """v, which the misfit sees."""
    sparse: tuple[Tensor, ...] = ()
    """w, which the penalty sees: the codes."""
    dual: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ADMM(ProximalSolver[_Split]):
    """The alternating direction method of multipliers, for any frame.

    The objective ``f(w) + penalty(w)``, f the misfit of all rows, is split as ``f(v) + penalty(w)`` with v = w, and its
    augmented Lagrangian with scaled dual u is

        f(v) + penalty(w) + rho/2 ||v - w + u||^2 - rho/2 ||u||^2.

    A sweep minimises over v with the proximal term 1/2 ||v - v_old||^2_P, P = diag(2 L_j / step_size) - Hessian of f
    (so nothing is inverted), then over w, then climbs in u:

        v_j <- (2 L_j / step_size v_j - grad_j f(v) + rho (w_j - u_j)) / (2 L_j / step_size + rho)
        w_j <- prox_{b_j / rho}(v_j + u_j)
        u_j <- u_j + v_j - w_j

    P is positive semidefinite, because in ||D_j w_j - t_j||^2 only two vectors meet and so the Hessian is at most
    2 diag(L_j); therefore it converges for every rho > 0. The first sweep sets v = w = feed-forward codes, u = 0.

    Source: Boyd et al., 2011, section 3; proximal terms: He, Liao, Han and Yang, 2002. The splitting is ours: that of
    Murdock, Chang and Lucey, 2018, arXiv:1803.06407, does not separate once a row reads two codes.
    """

    rho: float = 1.0
    """Weight of the split, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0:
            raise InputError(f"ADMM needs rho above 0, not {self.rho}")
        if self.step_size > 1:
            raise InputError(
                "ADMM's proximal term needs steps of at most 1 / L_j: give a step_size of at most 1, "
                f"not {self.step_size}"
            )

    def init(self, frame: Frame, x: Images) -> _Split:
        return _Split(self.sizes(frame))

    def step(self, frame: Frame, x: Images, state: _Split) -> _Split:
        if not state.sparse:
            codes = feed_forward(frame, x, self.penalty, state.sizes)
            return _Split(state.sizes, codes, codes, zero_codes(frame, x))
        smooth, sparse, dual = [], [], []
        slopes = smooth_gradient(frame, x, state.smooth)
        parts = zip(frame.blocks, state.sizes, state.smooth, state.sparse, state.dual, slopes)
        for layer, size, v, w, u, slope in parts:
            inertia = 2 / size
            v = (inertia * v - slope + self.rho * (w - u)) / (inertia + self.rho)
            w = self.penalty.prox(v + u, layer.threshold / self.rho)
            smooth.append(v)
            sparse.append(w)
            dual.append(u + v - w)
        return _Split(state.sizes, tuple(smooth), tuple(sparse), tuple(dual))

    def codes(self, state: _Split) -> tuple[Tensor, ...]:
        return state.sparse

    def refine(self, frame: Frame, x: Images, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # A sweep of deep pursuit: it has the same solutions, and needs no dual.
        return descend(frame, x, codes, codes, self.penalty, self.sizes(frame))
