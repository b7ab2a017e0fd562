"""What a run is: its record, units, verdicts, manifest and curves, and `Run`, through which everyone reads it."""

from robustframe.runs.opening import open_run, open_runs
from robustframe.runs.run import Adversarial, OneExample, Run

__all__ = ["Adversarial", "OneExample", "Run", "open_run", "open_runs"]
