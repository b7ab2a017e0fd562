"""Whatever stands in place of an argument of the functions at the top is taken, or refused in a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import inspect, tempfile
import torch, robustframe
from robustframe.data import load
from robustframe.errors import InputError
from robustframe.zoo import load_named

data = load("digits").first(2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
given = {"model": model, "x": data.images, "y": data.labels}
asked = {"threat": "linf:0.05", "battery": "quick", "diagnose": False, "report": robustframe.silent}
run = robustframe.evaluate(**given, **asked)
open("recipe.toml", "w").write(
    'schema = 1\\nname = "a"\\nseed = 0\\nthreats = ["linf:0.05"]\\nbattery = ["quick"]\\ndiagnose = false\\n'
    'data = { use = "digits", count = 2 }\\n[[model]]\\nuse = "zoo:digits-fc2-16"\\n'
)
ways = {
    "adapt": (robustframe.adapt, {"model": model}),
    "attack": (robustframe.attack, {**given, "attack": "fgsm", "threat": "linf:0.05"}),
    "evaluate": (robustframe.evaluate, {**given, **asked}),
    "evaluate_recipe": (robustframe.evaluate_recipe, {"path": "recipe.toml", "report": robustframe.silent}),
    "open_run": (robustframe.open_run, {"given": run.folder}),
    "verify": (robustframe.verify, {"run": run.folder, **given}),
    "ThreatModel": (robustframe.ThreatModel, {"norm": "linf", "eps": 0.1}),
    "ThreatModel.parse": (robustframe.ThreatModel.parse, {"text": "linf:0.1"}),
    "Pair": (robustframe.Pair, {"frame": load_named("zoo:digits-fc2-16")[0].frame, "classes": 10, "sweeps": 3}),
}
for name, (way, right) in ways.items():
    for argument in inspect.signature(way).parameters:
        for wrong in (3, None, 2.5, [3], {"a": 1}, "nowhere", "a\\0b"):
            if argument in ("isolate", "download"):
                continue
            arguments = {**right, argument: wrong}
            if name == "evaluate_recipe" and argument not in ("runs", "out"):
                arguments["out"] = tempfile.mkdtemp()
            try:
                way(**arguments)
            except InputError:
                continue
            except Exception as error:
                print(f"{name}({argument}={wrong!r}): {type(error).__name__}: {error}")
"""


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """What the script says in a process of its own, where no types are checked, as a user has it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_argument_of_the_functions_at_the_top_ends_in_a_trace(bare: str) -> None:
    assert bare == ""


SENTENCES = """
import robustframe
from robustframe.data import load

for way in (
    lambda: robustframe.verify(3),
    lambda: robustframe.verify("run", code="mine.py"),
    lambda: robustframe.evaluate_recipe(3),
    lambda: robustframe.evaluate_recipe("r.toml", out=3),
    lambda: robustframe.evaluate_recipe("r.toml", limits=60),
    lambda: robustframe.evaluate_recipe("r.toml", device=None),
    lambda: robustframe.ThreatModel.parse(8),
    lambda: robustframe.ThreatModel(norm="linf", eps=None),
):
    try:
        way()
    except robustframe.errors.InputError as error:
        print(error)
"""


def test_the_sentences_name_what_is_taken(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SENTENCES], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "a run is given as the path of its folder, not as int",
        "code is str; give a list of Python files, such as ['mine.py']",
        "path is int; it must be the path of a recipe",
        "out is int; it must be the path of a folder",
        "limits is int; say Limits(seconds=60), of robustframe.evaluation",
        "device None is not available here; use cpu, or auto",
        "a threat is text such as 'linf:8/255', not int",
        "eps None is not a number; write 0.1 or '8/255'",
    ], done.stderr
