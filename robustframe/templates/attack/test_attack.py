"""On a linear model the distance to the boundary is known: the attack must succeed just above it, and not below."""

import torch
from attack import MyAttack

from robustframe.draws import Draws
from robustframe.threat import ThreatModel

NORMS = {"linf": 1, "l2": 2}
"""Each norm with the norm of the weights that gives the distance."""


def test_it_reaches_the_boundary_of_a_linear_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    x = 0.4 + 0.2 * torch.rand(20, 1, 4, 4)
    y = model(x).argmax(1)
    logits = model(x)
    slope = model[1].weight[0] - model[1].weight[1]
    for norm, dual in NORMS.items():
        distances = (logits[:, 0] - logits[:, 1]).abs() / slope.norm(dual)
        for row, distance in enumerate(distances.tolist()):
            for factor, expected in ((1.05, True), (0.95, False)):
                threat = ThreatModel.parse(f"{norm}:{factor * distance}")
                found = MyAttack(steps=40, step_size=0.2).run(
                    model, x[row : row + 1], y[row : row + 1], threat, Draws((row,), 1)
                )
                assert bool(found.success) == expected, f"{norm}: {factor} x the distance of image {row}"


if __name__ == "__main__":
    test_it_reaches_the_boundary_of_a_linear_model()
    print("it succeeds at 1.05 x the distance to the boundary, and not at 0.95 x")
