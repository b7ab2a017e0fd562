"""Models that misbehave get a failed row or a right number, and the honest one beside them keeps its bytes."""

import contextlib
import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from troubled import environment

import robustframe
from robustframe.calls import borrowed
from robustframe.errors import InputError, Misbehaved, first_line
from robustframe.evaluation import Limits, evaluate_recipe
from robustframe.evaluation.limits import NO_LIMITS
from robustframe.lending import contained, lent
from robustframe.runs.run import Run

MODELS = """
import asyncio, ctypes, io, os, random, signal, sys, tempfile, time, warnings
import numpy as np
import torch
from robustframe.errors import Interrupted, OutOfTime

CALLS = [0]


class Honest(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = torch.nn.Parameter(torch.randn(10, 64, generator=generator))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("memory", torch.zeros(64, 10))

    def forward(self, x):
        return torch.nn.functional.linear(x.flatten(1) * 2 - 1, self.weight)


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


def forever(depth):
    return forever(depth + 1)


class Bad(Honest):
    def forward(self, x):
        CALLS[0] += 1
        # When it is tried, it is called five times; a process that is new after that makes few calls.
        soon, late = CALLS[0] > 5, CALLS[0] > 8
        answer = super().forward(x)
        BODY
        return answer


def bad():
    return Bad()


def honest():
    return Honest()
"""
RECIPE = """
schema = 1
name = "misbehaving"
about = "For the tests."
seed = 3
chunk = 10
threats = ["linf:0.2"]
battery = ["small.toml"]
diagnose = false

[data]
use = "digits"
count = 20

[[model]]
use = "file:models.py:bad"
name = "bad"

[[model]]
use = "file:honest.py:honest"
name = "honest"
"""
BATTERY = """
schema = 1
name = "small"
version = "0.1"

[[attack]]
use = "pgd"
steps = 2
"""

INCOMPLETE = {
    "sys.exit(0)": r"ends a process, SystemExit: 0 \(models.py, line \d+\)",
    "sys.exit('goodbye')": "SystemExit: goodbye",
    "if late: sys.exit(3)": "SystemExit: 3",
    "if late: exit()": "SystemExit: None",
    "raise KeyboardInterrupt": "ends a process, KeyboardInterrupt",
    "if late: raise KeyboardInterrupt": "ends a process, KeyboardInterrupt",
    "raise GeneratorExit": "ends a process, GeneratorExit",
    "if late: raise GeneratorExit": "ends a process, GeneratorExit",
    "if late: raise BaseException('odd')": "ends a process, BaseException: odd",
    "raise Odd('own')": "ends a process, Odd: own",
    "if late: raise asyncio.CancelledError": "ends a process, CancelledError",
    "if late: raise BaseExceptionGroup('two', [Odd(), ValueError()])": "ends a process, BaseExceptionGroup: two",
    "if late: raise Interrupted": "ends a process, Interrupted",
    "if late: raise OutOfTime": "ends a process, OutOfTime",
    "if late: raise StopIteration": "StopIteration",
    "if late: raise ZeroDivisionError('a bug')": r"ZeroDivisionError: a bug \(models.py, line \d+\)",
    "if late: raise RuntimeError": r"RuntimeError \(models.py",
    "if late: raise ValueError('x' * 10**7)": r"ValueError: x{900,}\.\.\. \(models.py",
    "if late: raise ValueError('a\\udce9b')": r"ValueError: a\\udce9b \(models.py",
    "if late: raise ValueError('red \\x1b[31m')": r"ValueError: red \\x1b\[31m",
    "if late: raise Mute": "Mute, whose text cannot be made: ValueError",
    "if late: raise type('A\\nB', (Exception,), {})('text')": "text",
    "if late: forever(0)": "RecursionError: maximum recursion depth exceeded",
    "if late: raise MemoryError": "ran out of memory: MemoryError",
    "if late and not answer.requires_grad: return None": "returned NoneType for 16 images",
    "if late and not answer.requires_grad: return answer[:3]": r"returned \(3, 10\) for 16 images",
}
"""By what the model does: the reason that its row gives."""
RIGHT = {
    "torch.set_default_dtype(torch.float64)": "changes the default dtype",
    "torch.set_default_device('meta')": "changes the default device",
    "os.chdir('/')": "changes the working directory",
    "folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)": "changes the working directory",
    "torch.set_num_threads(3)": "changes the number of threads",
    "torch.set_grad_enabled(not torch.is_grad_enabled())": None,
    "CALLS.append(torch.inference_mode()); CALLS[-1].__enter__(); CALLS[:] = CALLS[:1]": None,
    "torch.set_autocast_enabled('cpu', True)": "changes autocast",
    "torch.use_deterministic_algorithms(True)": "changes the deterministic algorithms",
    "torch.backends.cudnn.benchmark = True": "changes cuDNN",
    "torch.set_float32_matmul_precision('medium')": "changes the precision of products",
    "torch.backends.cudnn.allow_tf32 = True": "changes TF32 in cuDNN",
    "torch.set_flush_denormal(True)": "changes the flushing",
    "torch.autograd.set_detect_anomaly(True)": "changes the detection of anomalies",
    "torch.nn.modules.module.register_module_forward_hook(lambda *given: None)": "changes the hooks of all modules",
    "np.seterr(all='raise')": "changes NumPy's handling",
    "warnings.filters.insert(0, ('error', None, UserWarning, None, 0))": "changes the warnings that are errors",
    "signal.signal(signal.SIGINT, signal.SIG_IGN)": "changes the handler of SIGINT",
    "signal.signal(signal.SIGTERM, lambda *given: None)": "changes the handler of SIGTERM",
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})": "changes the blocked signals",
    "os.closerange(0, 1)": "file descriptor 0",
    "os.closerange(1, 2)": "file descriptor 1",
    "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)": "file descriptor 2",
    "sys.stdout.close()": "closes a stream",
    "sys.stderr.buffer.close()": "closes a stream",
    "sys.stdout = io.StringIO()": "replaces sys.stdout",
    "sys.stderr = None": "replaces sys.stderr",
    "torch.manual_seed(1); random.seed(1); np.random.seed(1)": None,
    "x.zero_()": None,
    "self.train()": None,
    "self.count += 1": None,
    "self.count = self.count + 1": None,
    "self.memory[:len(x)] = answer.detach(); answer = answer if answer.requires_grad else self.memory[:len(x)]": None,
    "self.weight.requires_grad_(True)": None,
    "self.weight.data = self.weight.data": None,
    "if not answer.requires_grad: self.weight.detach().mul_(1)": "changes its own weights",
}
"""By what the model does: what is said of it, in a flag or while it runs."""

HANGS = """if soon:
            while True:
                try:
                    time.sleep(0.1)
                except BaseException:
                    pass"""
DEADLY = {
    "os._exit(0)": "its process ended with status 0",
    "if soon: os.abort()": "its process was ended by SIGABRT",
    "if soon: ctypes.string_at(0)": "its process was ended by SIGSEGV",
    "if soon: os.kill(os.getpid(), 9)": "its process was ended by SIGKILL",
    "if soon: os.closerange(0, 200); os._exit(7)": "its process ended with status 7",
    HANGS: "longer than the time limit of 20 s",
    "if soon: torch.nn.functional.linear = None; sys.exit(0)": "SystemExit: 0",
}
"""What a model does to its process that only a process of its own survives: the reason that its row gives."""


def lay_out(folder: Path, body: str) -> Path:
    """Write the recipe of a model that does something in each forward, and of an honest one; return the recipe."""
    folder.mkdir(exist_ok=True)
    (folder / "models.py").write_text(MODELS.replace("BODY", body), encoding="utf-8")
    (folder / "honest.py").write_text(MODELS.replace("BODY", "pass"), encoding="utf-8")
    (folder / "small.toml").write_text(BATTERY)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    return recipe


def units(run: Run, model: str) -> dict[str, str]:
    """The hash of each unit file of a model, by its place in the model's folder."""
    (folder,) = (run.folder / "units").glob(f"*-{model}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of two honest models."""
    return evaluate_recipe(lay_out(tmp_path_factory.mktemp("good") / "here", "pass"), runs=tmp_path_factory.mktemp("r"))


def misbehave(tmp_path: Path, body: str, limits: Limits = NO_LIMITS) -> Run:
    return evaluate_recipe(lay_out(tmp_path / "here", body), out="run", device="cpu", limits=limits)


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A battery of a moment."""
    file = tmp_path / "small.toml"
    file.write_text(BATTERY.replace("steps = 2", "steps = 10"))
    return str(file)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of one's own, where a relative folder of a run leads to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_enough_kinds() -> None:
    assert len(INCOMPLETE) + len(RIGHT) + len(DEADLY) >= 42


@pytest.mark.parametrize("body", INCOMPLETE)
def test_what_a_model_raises_costs_its_own_row(body: str, inside: Path, good: Run) -> None:
    run = misbehave(inside, body)
    (row,) = run.record.failed
    assert row.classifier == "bad"
    assert re.search(INCOMPLETE[body], row.reason), row.reason
    assert len(row.reason) < 1300
    assert units(run, "honest") == units(good, "honest")
    assert run.record.results[0].classifier == "honest"


@pytest.mark.parametrize("body", RIGHT)
def test_what_a_model_does_to_the_process_is_taken_back_and_said(
    body: str, inside: Path, good: Run, caplog: pytest.LogCaptureFixture
) -> None:
    streams = sys.stdin, sys.stdout, sys.stderr
    with caplog.at_level(logging.WARNING, logger="robustframe"):
        run = misbehave(inside, body)
    assert (sys.stdin, sys.stdout, sys.stderr) == streams
    assert Path.cwd() == inside
    assert (inside / "run" / "record.json").is_file()
    assert not run.record.failed, run.record.failed
    said = RIGHT[body]
    heard = [each for each in [*run.record.flags, *caplog.messages] if each.startswith("bad ")]
    assert said is None or any(said in each for each in heard), heard
    assert said is not None or run.record.flags == good.record.flags
    for model in ("bad", "honest"):
        assert units(run, model) == units(good, model)


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of an honest model beside one that ends its process, each in a process of its own."""
    folder = tmp_path_factory.mktemp("isolated")
    return evaluate_recipe(lay_out(folder / "here", "os._exit(0)"), out=folder / "run", device="cpu", isolate=True)


def test_a_model_that_ends_its_process_costs_its_own_row(survived: Run, good: Run) -> None:
    (row,) = survived.record.failed
    assert (row.classifier, row.reason) == ("bad", "its process ended with status 0")
    assert units(survived, "honest") == units(good, "honest")


@pytest.mark.slow
@pytest.mark.parametrize("body", [body for body in DEADLY if body != "os._exit(0)"])
def test_nothing_reaches_another_process(body: str, tmp_path: Path, good: Run) -> None:
    recipe = lay_out(tmp_path / "here", body)
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu", limits=Limits(seconds=20), isolate=True)
    (row,) = run.record.failed
    assert row.classifier == "bad"
    assert DEADLY[body] in row.reason
    assert units(run, "honest") == units(good, "honest")


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "robustframe", "evaluate", *words)
    return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=600)


def test_a_single_model_that_exits_is_refused_with_a_sentence(tmp_path: Path) -> None:
    lay_out(tmp_path, "sys.exit(0)")
    found = command("--model", "file:models.py:bad", "--data", "digits", "--count", "20", cwd=tmp_path)
    assert found.returncode == 2
    assert "models cannot be evaluated: it raised what ends a process, SystemExit: 0" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_isolated_by_the_command_line(tmp_path: Path) -> None:
    recipe = lay_out(tmp_path, "if soon: os._exit(0)")
    found = command(str(recipe), "--isolate", "--out", "run", cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    assert "row failed: bad under linf:0.2: its process ended with status 0" in found.stderr
    (tmp_path / "models.py").write_text(MODELS.replace("BODY", "pass").replace("return Bad()", "os._exit(4)"))
    found = command(str(recipe), "--isolate", "--out", "run2", cwd=tmp_path)
    assert found.returncode == 2
    assert "model file:models.py:bad cannot be loaded: its process ended with status 4" in found.stderr


@pytest.mark.slow
def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    recipe = lay_out(tmp_path, "if soon: open(os.environ['THERE'], 'w').write(str(os.getpid())); time.sleep(600)")
    there = tmp_path / "there"
    words = [sys.executable, "-m", "robustframe", "evaluate", str(recipe), "--isolate", "--out", "run"]
    with subprocess.Popen(words, cwd=tmp_path, env={**environment(), "THERE": str(there)}) as process:
        while not there.exists() or not there.read_text():
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    child = int(there.read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


def test_isolate_is_refused_with_ray(tmp_path: Path) -> None:
    recipe = lay_out(tmp_path, "pass")
    found = command(str(recipe), "--isolate", "--engine", "ray", cwd=tmp_path)
    assert found.returncode == 2
    assert "--isolate belongs with --engine process" in found.stderr


class InPlace(nn.Module):
    """Four classes, behind a preparation that is made in some place."""

    def __init__(self, place: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(4, 64, generator=generator))
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.place == "unseen":
            x.data.mul_(0.5).add_(0.25)
        elif self.place == "bent":
            x.data.mul_(x.data)
        elif self.place == "in place":
            x = x.mul_(0.5).add_(0.25)
        elif self.place == "assigned":
            x[:] = x * 0.5 + 0.25
        else:
            x = x * 0.5 + 0.25
        return nn.functional.linear(x.flatten(1), self.weight)


@pytest.mark.parametrize("count", [5, 16, 40])
@pytest.mark.parametrize("place", ["in place", "assigned", "unseen"])
def test_a_preparation_in_place_gives_the_numbers_of_the_same_out_of_place(place: str, count: int, small: str) -> None:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = InPlace("copy")(images).argmax(1)
    untouched = images.clone()
    found, right = (
        robustframe.evaluate(InPlace(each), images, labels, threat="linf:0.03", battery=small, diagnose=False)
        for each in (place, "copy")
    )
    assert torch.equal(images, untouched)
    assert right.record.results[0].clean_correct == count
    assert 0 < right.record.results[0].robust_correct < count or count == 5
    assert found.verdicts.equals(right.verdicts)
    flags = [flag for flag in found.record.flags if "prepares its images in place" in flag]
    assert len(flags) == (place == "unseen")


def test_a_preparation_that_no_gradient_follows_is_refused(small: str) -> None:
    images = torch.rand(16, 1, 8, 8)
    with pytest.raises(InputError, match="model prepares its images in place where gradients do not follow"):
        robustframe.evaluate(
            InPlace("bent"), images, torch.zeros(16, dtype=torch.long), threat="linf:0.03", battery=small
        )


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
        torch.device("meta"),
    ],
    ids=lambda context: type(context).__name__,
)
def test_the_caller_s_context_changes_nothing(context: object, small: str) -> None:
    net = InPlace("copy")
    images = torch.rand(16, 1, 8, 8)
    labels = net(images).argmax(1)
    right = robustframe.evaluate(net, images, labels, threat="linf:0.02", battery=small)
    with context:  # type: ignore[attr-defined]
        given = images.clone() if "meta" not in str(context) else images
        state = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        found = robustframe.evaluate(net, given, labels, threat="linf:0.02", battery=small)
        assert state == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    assert (found.folder / "record.json").read_bytes() == (right.folder / "record.json").read_bytes()


def test_another_default_dtype_of_the_caller_changes_nothing(small: str) -> None:
    net, images = InPlace("copy"), torch.rand(16, 1, 8, 8)
    labels = net(images).argmax(1)
    right = robustframe.evaluate(net, images, labels, threat="linf:0.02", battery=small)
    torch.set_default_dtype(torch.float64)
    try:
        found = robustframe.evaluate(net, images, labels, threat="linf:0.02", battery=small)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (found.folder / "record.json").read_bytes() == (right.folder / "record.json").read_bytes()


def test_models_compute_in_full_float32_whatever_the_caller_allows(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    class Looks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.add((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
            return x.flatten(1)[:, :10]

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        images = torch.rand(8, 1, 8, 8)
        found = robustframe.evaluate(Looks(), images, images.flatten(1)[:, :10].argmax(1), battery=small)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == {(False, "highest")}
    assert not [flag for flag in found.record.flags if "changes" in flag]


def test_a_model_made_in_inference_mode_is_refused_with_a_sentence(small: str) -> None:
    with torch.inference_mode():
        net = InPlace("copy")
    with pytest.raises(InputError, match=r"made inside torch\.inference_mode"):
        robustframe.evaluate(
            net, torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long), threat="linf:0.02", battery=small
        )


def test_buffers_come_back_as_they_were() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))
    norm = net[1]
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with borrowed(net):
        norm.train()
        net(torch.rand(8, 1, 2, 2))
        assert not torch.equal(norm.running_mean, before["1.running_mean"])
        norm.num_batches_tracked.data.add_(3)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_what_is_computed_once_and_kept_stays() -> None:
    net = nn.Module()
    net.register_buffer("cache", torch.zeros(0))
    with borrowed(net):
        net.cache = torch.ones(3)
    assert net.cache.tolist() == [1, 1, 1]


@pytest.mark.parametrize("guard", [contained, lent])
def test_a_stop_of_the_user_s_goes_through(guard: type) -> None:
    def hidden() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("hidden") from None

    def swallowed() -> None:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)

    for work in (hidden, swallowed, lambda: signal.raise_signal(signal.SIGINT)):
        with pytest.raises(KeyboardInterrupt), guard(), lent():
            work()
    with pytest.raises(Misbehaved, match="KeyboardInterrupt"), guard():
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_only_notes_a_stop_is_called_once() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        with lent():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert calls == [signal.SIGTERM]


def test_in_another_thread_the_guard_holds_too() -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            with lent():
                torch.set_default_dtype(torch.float64)
                raise KeyboardInterrupt
        except Misbehaved as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert torch.get_default_dtype() == torch.float32


def test_closed_descriptors_come_back(tmp_path: Path) -> None:
    there = os.fstat(1)
    with lent():
        os.close(1)
        os.close(2)
    assert (there.st_dev, there.st_ino) == (os.fstat(1).st_dev, os.fstat(1).st_ino)


def test_first_line_takes_any_error() -> None:
    assert first_line(ValueError("\n one \n two")) == "one"
    assert first_line(ValueError("")) == "ValueError"
    assert first_line(ValueError("\udce9\x00")) == "\\udce9\\x00"
    assert len(first_line(ValueError("long " * 10**6))) == 1000


@pytest.mark.parametrize("body", ["sys.exit(0)", "torch.set_num_threads(3); answer = answer[:0] if late else answer"])
def test_a_run_with_a_model_that_broke_down_verifies(body: str, tmp_path: Path) -> None:
    recipe = lay_out(tmp_path / "here", body)
    run = evaluate_recipe(recipe, out=tmp_path / "run", device="cpu")
    assert [row.classifier for row in run.record.failed] == ["bad"]
    code = [tmp_path / "here" / name for name in ("models.py", "honest.py")]
    verified = robustframe.verify(run.folder, folder=recipe.parent, device="cpu", code=code)
    assert verified.ok, str(verified)
    assert evaluate_recipe(recipe, out=tmp_path / "run", device="cpu").record.failed == run.record.failed
