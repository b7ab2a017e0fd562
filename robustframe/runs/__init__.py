"""What a run is: its record, units, verdicts, manifest and curves, and `Run`, through which everybody reads it."""

from robustframe.runs.run import Adversarial, OneExample, Run, open_run, open_runs

__all__ = ["Adversarial", "OneExample", "Run", "open_run", "open_runs"]
