"""A user's file: mypy --strict knows what everything here is, from the installed package alone (see .ci/run)."""

from pathlib import Path
from typing import Literal, assert_type

import polars as pl
import torch
from torch import Tensor

import robustframe
from robustframe import Run
from robustframe.verification import Verification

run = robustframe.evaluate(torch.nn.Flatten(), torch.rand(2, 3), [0, 1], out=Path("there"))
assert_type(run, Run)
assert_type(run.adversarial().images, Tensor)
assert_type(run.verdicts, pl.DataFrame)
assert_type(run.verify(), Verification)
assert_type(robustframe.open_run("there").record.status, Literal["started", "complete"])
found = robustframe.attack(torch.nn.Flatten(), torch.rand(2, 3), [0, 1], "pgd", "linf:0.1")
assert_type(found.images, Tensor)
assert_type(found.robust_accuracy, float)
