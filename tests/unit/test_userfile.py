"""Code of the user's: it imports what lies beside it, it is asked for before it runs, and all its files are known."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from robustframe.attacks import make_attack
from robustframe.errors import InputError
from robustframe.models.sources import find_model
from robustframe.recipe import ModelSpec
from robustframe.userfile import (
    USER_MODULE,
    code_behind,
    code_consent,
    code_named,
    consent,
    files_of,
    load_user_file,
    load_user_function,
    refusal,
    remember_code,
    remembered,
)

PROJECT = {
    "model.py": """
import pkg.deep.leaf as leaf
import pkg.deep
from pkg.net import make
from pkg import *
from helper import VALUE
def late():
    from later import LATE
    import pkg.lazy
    return LATE, pkg.lazy.name()
def by_name(name):
    import importlib
    return importlib.import_module(name)
def taken(name):
    from importlib import import_module
    return import_module(f"pkg.{name}").__name__
""",
    "helper.py": "import model\nVALUE = 'mine'\ndef build():\n    return model.make()\n",
    "later.py": "LATE = 'late'\n",
    "pkg/__init__.py": "__all__ = ['starred']\n",
    "pkg/starred.py": "",
    "pkg/net.py": "from . import other\nfrom .other import scale as factor\nfrom helper import VALUE\n"
    "def make():\n    return VALUE, factor()\n",
    "pkg/other.py": "from . import net\ndef scale():\n    from .number import N\n    return N if net.make else None\n",
    "pkg/number.py": "N = 7\n",
    "pkg/lazy.py": "def name():\n    return __name__.rpartition('.')[2]\n",
    "pkg/deep/leaf.py": "from ..number import N\nfrom .. import number\n",
}


def lay(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def loaded(folder: Path, name: str = "model.py") -> ModuleType:
    return load_user_file(f"{name}:x", folder, kind="model")[0]


def public() -> set[str]:
    return {name for name in sys.modules if not name.startswith(USER_MODULE)}


def test_a_file_imports_what_lies_beside_it_as_a_script_does(tmp_path: Path) -> None:
    before, path = public(), list(sys.path)
    model = loaded(lay(tmp_path, PROJECT))
    assert model.make() == ("mine", 7)
    assert model.leaf.N == 7
    assert model.leaf is model.pkg.deep.leaf
    assert model.starred is model.pkg.starred
    assert model.late() == ("late", "lazy")
    assert model.by_name("pkg.net") is sys.modules[model.make.__module__]
    assert model.by_name("helper").build() == ("mine", 7)
    assert model.by_name("json") is json
    assert model.taken("lazy").endswith("pkg.lazy")
    assert sys.path == path
    assert public() == before
    assert not list(tmp_path.rglob("__pycache__"))
    # Nobody else has come to see them.
    with pytest.raises(ModuleNotFoundError):
        __import__("later")


def test_a_project_does_the_same_as_a_script(tmp_path: Path) -> None:
    lay(tmp_path, PROJECT)
    (tmp_path / "helper.py").write_text("VALUE = 'mine'\n")
    with (tmp_path / "model.py").open("a") as file:
        file.write("said = (make(), leaf.N, late(), starred.__doc__)\nif __name__ == '__main__':\n    print(said)\n")
    done = subprocess.run([sys.executable, tmp_path / "model.py"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loaded(tmp_path).said)


TWO = {
    "model.py": "import helper\nfrom helper import VALUE\n"
    "def now():\n    return helper.VALUE, VALUE\n"
    "def late():\n    import helper as again\n    from later import LATE\n    return again.VALUE, LATE\n",
    "helper.py": "VALUE = '{}'\n",
    "later.py": "from helper import VALUE\nLATE = VALUE\n",
}


def test_modules_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for each in ("one", "two"):
        lay(tmp_path / each, {name: text.format(each) for name, text in TWO.items()})
    one, two = loaded(tmp_path / "one"), loaded(tmp_path / "two")
    assert (one.now(), two.now()) == (("one",) * 2, ("two",) * 2)
    # At call time too, and in a thread.
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(one.late()))
    thread.start()
    thread.join()
    assert (found, two.late()) == ([("one",) * 2], ("two",) * 2)


def test_a_file_loaded_again_is_run_again_and_the_first_keeps_its_modules(tmp_path: Path) -> None:
    lay(tmp_path, {name: text.format("abc") for name, text in TWO.items()})
    first = loaded(tmp_path)
    stamp = (tmp_path / "helper.py").stat()
    (tmp_path / "helper.py").write_text("VALUE = 'xyz'\n")
    # As it is when the edit comes within the same second: bytecode of the old text would pass for it.
    os.utime(tmp_path / "helper.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = loaded(tmp_path)
    assert second.now() == second.late() == ("xyz", "xyz")
    assert first.now() == ("abc", "abc")
    assert first.late() == ("abc", "abc")


def test_what_is_loaded_again_does_not_stay_in_memory(tmp_path: Path) -> None:
    import gc
    import weakref

    lay(tmp_path, {"model.py": "import helper\n", "helper.py": "class Big: pass\nheld = Big()\n"})
    first = weakref.ref(loaded(tmp_path).helper.held)
    assert first() is not None
    loaded(tmp_path)
    gc.collect()
    assert first() is None


def test_a_users_module_goes_before_an_installed_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = lay(tmp_path / "installed", {"clashing_utils.py": "WHO = 'other'\n", "clashing_models/__init__.py": ""})
    monkeypatch.syspath_prepend(str(installed))
    others = __import__("clashing_utils")
    lay(
        tmp_path / "mine",
        {
            "model.py": "import clashing_utils\nfrom clashing_models.net import WHO\n",
            "clashing_utils.py": "WHO = 'mine'\n",
            "clashing_models/__init__.py": "",
            "clashing_models/net.py": "from clashing_utils import WHO\n",
        },
    )
    model = loaded(tmp_path / "mine")
    assert (model.clashing_utils.WHO, model.WHO) == ("mine", "mine")
    assert others.WHO == "other"
    assert sys.modules["clashing_utils"] is others
    monkeypatch.delitem(sys.modules, "clashing_utils")


def test_robustframe_torch_and_a_folder_of_data_are_not_taken_for_the_users(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "model.py": "import robustframe.errors, torch, packaging.version\n",
            "robustframe/__init__.py": "raise SystemExit",
            "torch/__init__.py": "raise SystemExit",
            "packaging/notes.txt": "",
        },
    )
    model = loaded(tmp_path)
    assert model.torch is torch
    assert model.robustframe.errors.InputError is InputError
    assert model.packaging is sys.modules["packaging"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.py": "import helper", "helper.py": "1 / 0"}, "does not load: ZeroDivisionError"),
        ({"model.py": "import helper.net", "helper.py": ""}, "No module named 'helper.net'; 'helper' is not a package"),
        ({"model.py": "import pkg.net", "pkg/__init__.py": ""}, "No module named 'pkg.net'"),
        ({"model.py": "from pkg import nets", "pkg/__init__.py": ""}, "cannot import name 'nets' from 'pkg'"),
        ({"model.py": "from .. import x"}, "relative import"),
        (
            {"model.py": "from pkg import net", "pkg/__init__.py": "", "pkg/net.py": "import pkg.gone"},
            "No module named 'pkg.gone'",
        ),
        (
            {"model.py": "from one import A", "one.py": "from two import B", "two.py": "from one import A\nB = 1"},
            "cannot import name 'A' from 'one'",
        ),
    ],
)
def test_what_does_not_load_is_said_in_the_words_of_the_file_and_leaves_nothing(
    files: dict[str, str], words: str, tmp_path: Path
) -> None:
    lay(tmp_path, files)
    before, path = set(sys.modules), list(sys.path)
    with pytest.raises(InputError, match=words) as caught:
        loaded(tmp_path)
    assert USER_MODULE not in str(caught.value)
    assert (set(sys.modules), sys.path) == (before, path)


def test_a_file_that_fails_when_it_is_loaded_again_leaves_the_first_in_place(tmp_path: Path) -> None:
    model = loaded(lay(tmp_path, {"model.py": "import helper\n", "helper.py": ""}))
    held = {name: module for name, module in sys.modules.items() if name.startswith(USER_MODULE)}
    (tmp_path / "helper.py").write_text("1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        loaded(tmp_path)
    assert {name: module for name, module in sys.modules.items() if name.startswith(USER_MODULE)} == held
    assert sys.modules[model.__name__] is model


def test_a_dataclass_with_postponed_annotations_and_its_source_are_found(tmp_path: Path) -> None:
    import inspect

    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass D:\n    a: int = 1\n"
    )
    model = loaded(lay(tmp_path, {"model.py": "from helper import D\n", "helper.py": text}))
    assert model.D().a == 1
    assert "a: int = 1" in inspect.getsource(model.D)


def test_a_model_of_several_files_has_another_hash_when_one_of_them_changes(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "model.py": "from pkg.net import make\n",
            "pkg/net.py": "import torch\nfrom helper import SIGN\n"
            "class Net(torch.nn.Flatten):\n    def forward(self, x):\n        return SIGN * super().forward(x)\n"
            "def make():\n    return Net()\n",
            "helper.py": "SIGN = 1\n",
        },
    )
    spec, x = ModelSpec(use="file:model.py:make"), torch.ones(2, 1, 2, 2)
    one = find_model(spec, folder=tmp_path)
    assert find_model(spec, folder=tmp_path).files == one.files
    (tmp_path / "helper.py").write_text("SIGN = 2\n")
    other = find_model(spec, folder=tmp_path)
    assert torch.equal(other.module(x), 2 * one.module(x))
    assert other.files != one.files


# Which files there are.


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_files_of_a_file_are_all_that_it_may_import(tmp_path: Path) -> None:
    lay(tmp_path, PROJECT | {"unrelated.py": "", "pkg/unrelated.py": "", "broken.py": "def"})
    with (tmp_path / "model.py").open("a") as file:
        file.write("if False:\n    import broken, nowhere\nelse:\n    import other\n")
        file.write("try:\n    import tried\nexcept ImportError:\n    import caught\nfinally:\n    import last\n")
        file.write("match 1:\n    case 1:\n        __import__('named')\n    case _:\n        import matched\n")
    ways = [f"{name}.py" for name in ("other", "tried", "caught", "last", "matched")]
    lay(tmp_path, dict.fromkeys(ways, ""))
    lay(tmp_path, {"named.py": "import numpy, os, torch.nn, yaml_of_nobody, packaging\n"})
    # Nothing is run, so what `from pkg import *` takes is not known yet.
    expected = {"named.py", "broken.py", *ways, *PROJECT} - {"pkg/starred.py"}
    found = files_of(tmp_path / "model.py")
    assert set(found) == expected
    assert all(found[name] == sha((tmp_path / name).read_text()) for name in expected)
    behind = code_behind([tmp_path / "model.py"])
    assert (behind.packages, behind.compiled) == (("numpy", "packaging", "torch"), ())


def test_the_files_of_a_loaded_file_are_those_that_were_run(tmp_path: Path) -> None:
    lay(tmp_path, PROJECT)
    model = loaded(tmp_path)
    before = files_of(tmp_path / "model.py", model)
    assert set(before) == set(PROJECT)
    (tmp_path / "helper.py").write_text("VALUE = 'edited'\n")
    assert files_of(tmp_path / "model.py", model) == before
    assert files_of(tmp_path / "model.py")["helper.py"] == sha("VALUE = 'edited'\n")


def test_the_files_are_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    one, two = lay(tmp_path / "one", PROJECT), lay(tmp_path / "far" / "two", PROJECT)
    assert files_of(one / "model.py") == files_of(two / "model.py")
    (tmp_path / "link.py").symlink_to(one / "model.py")
    assert files_of(tmp_path / "link.py") == files_of(one / "model.py")


def test_modules_of_the_users_elsewhere_count_and_compiled_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.machinery

    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    lay(
        tmp_path / "elsewhere",
        {"faraway/__init__.py": "", "faraway/net.py": "from . import more", "faraway/more.py": ""},
    )
    lay(
        tmp_path / "mine",
        {"model.py": "import faraway.net, quick.fast\n", "quick/__init__.py": "", f"quick/fast{suffix}": ""},
    )
    behind = code_behind([tmp_path / "mine" / "model.py"])
    assert set(behind.files) == {
        "model.py", "quick/__init__.py", "faraway/__init__.py", "faraway/net.py", "faraway/more.py"
    }  # fmt: skip
    assert behind.compiled == (f"quick/fast{suffix}",)


# Whether it may run.

EVIL = """
from pathlib import Path
import beside
(Path(__file__).parent / "it ran").touch()
def f(*given): return given[0]
build = f
"""


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    (tmp_path / "evil.py").symlink_to("really.py")
    lay(tmp_path, {"really.py": EVIL, "beside.py": "", "other.py": EVIL})
    return tmp_path


def a_model(folder: Path) -> object:
    return find_model(ModelSpec(use="file:evil.py:build"), folder=folder)


def an_attack(folder: Path) -> object:
    return make_attack("file:evil.py:Evil", {}, folder=folder)


def a_loss(folder: Path) -> object:
    return make_attack("apgd", {"loss": "file:./evil.py:f"}, folder=folder)


def a_surrogate(folder: Path) -> object:
    # The battery's key is called like one that was once left out of a search for code.
    return make_attack("apgd", {"bpda": {"data": "file:evil.py:f"}}, folder=folder)


def in_a_thread(folder: Path) -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            a_loss(folder)
        except InputError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise caught[0]


@pytest.mark.parametrize("load", [a_model, an_attack, a_loss, a_surrogate, in_a_thread])
def test_code_that_only_a_run_names_does_not_run(load: Any, evil: Path) -> None:
    with pytest.raises(InputError) as refused, code_consent([evil / "other.py", evil], run=evil / "run"):
        load(evil)
    assert not (evil / "it ran").exists()
    assert "code of a run is not run unasked" in str(refused.value)
    assert f"{evil / 'really.py'}, which imports beside.py: they run too" in str(refused.value)
    wanted = sorted(str(evil / each) for each in ("other.py", "really.py"))
    assert all(f"--code {each}" in str(refused.value) for each in wanted)


def test_no_way_of_writing_a_path_gets_past_the_gate(evil: Path) -> None:
    (evil / "inner").symlink_to(".")
    with code_consent([evil / "beside.py"], run=evil / "run"):
        for place in ("inner/really.py", "./evil.py", str(evil / "evil.py"), f"inner/../{evil.name}/other.py"):
            for load in (load_user_file, load_user_function):
                with pytest.raises(InputError, match="unasked"):
                    load(f"{place}:f", evil, kind="loss")
        # What the list does not take for code is nothing that is loaded either.
        for use in ("File:evil.py:f", "FILE:evil.py:f", " file:evil.py:f"):
            assert code_named([use]) == []
            with pytest.raises(InputError):
                make_attack("apgd", {"loss": use}, folder=evil)
            with pytest.raises(InputError):
                make_attack(use, {}, folder=evil)
            with pytest.raises(InputError):
                find_model(ModelSpec(use=use), folder=evil)
    assert not (evil / "it ran").exists()


def test_code_runs_that_the_user_allows_and_outside_of_any_run(evil: Path) -> None:
    with code_consent([evil / "evil.py"], run=evil / "run"):
        a_loss(evil)
    assert (evil / "it ran").exists()
    (evil / "it ran").unlink()
    with pytest.raises(InputError, match="unasked"), code_consent([], run=evil / "run"):
        a_loss(evil)
    a_loss(evil)
    assert (evil / "it ran").exists()


def test_all_files_are_said_at_once_with_the_command_that_allows_them(evil: Path) -> None:
    named = [evil / "evil.py", evil / "other.py", evil / "gone.py"]
    asked = code_consent([evil / "other.py"], run=Path("runs/a b"), named=named, command="robustframe table")
    with pytest.raises(InputError) as refused, asked:
        raise AssertionError("something was run")
    said = str(refused.value)
    assert f"{evil / 'gone.py'} (which is not there)" in said
    command = f"robustframe table 'runs/a b' --code {evil}/gone.py --code {evil}/other.py --code {evil}/really.py"
    assert command in said
    with code_consent(named, run=Path("run"), named=named):
        pass
    # Nothing is left of a refusal.
    a_loss(evil)


def test_a_path_that_is_none_or_would_steer_the_terminal_is_spelt_out() -> None:
    said = str(refusal(Path("run"), [Path("a\0b.py"), Path("\x1b[2Jc.py")]))
    assert "\\x00" in said
    assert "\\x1b" in said
    assert "\x1b" not in said


def test_the_list_of_named_code_is_read_at_any_depth_and_under_any_key() -> None:
    content = {
        "recipe": {"data": {"use": "file:images.npz"}, "model": [{"use": "file:m.py:build"}]},
        "batteries": [
            {"attack": [{"use": "apgd", "bpda": {"data": "file:a.py:f", "file:b.py:g": 1}}, [["file:c.py:h"]]]},
            {"attack": [{"use": "file:a.py:again"}]},
        ],
        "flags": ["file:no", "about file:d.py:f"],
    }
    assert code_named(content) == ["m.py", "a.py", "b.py", "c.py"]


def test_only_a_file_that_the_installed_package_brought_unchanged_is_exempt(
    evil: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = evil / "_shipped"
    lay(shipped, {"ours.py": "def f(*given): pass", "edited.py": "def f(*given): pass", "left.py": EVIL})

    class Entry:
        def __init__(self, name: str) -> None:
            digest = hashlib.sha256((shipped / name).read_bytes()).digest()
            self.place, self.hash = shipped / name, self
            self.value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

        def locate(self) -> Path:
            return self.place

    installed = SimpleNamespace(files=[Entry("ours.py"), Entry("edited.py")])
    monkeypatch.setattr(consent, "_SHIPPED", shipped)
    monkeypatch.setattr(consent, "distribution", lambda name: installed)
    (shipped / "edited.py").write_text(EVIL)
    (evil / "copy.py").write_text((shipped / "ours.py").read_text())
    with code_consent([], run=evil / "run"):
        load_user_function("ours.py:f", shipped, kind="loss")
        for place in (shipped / "edited.py", shipped / "left.py", evil / "copy.py"):
            with pytest.raises(InputError, match="unasked"):
                load_user_function(f"{place.name}:f", place.parent, kind="loss")
    assert not (shipped / "it ran").exists()


def test_ones_own_run_is_remembered_with_its_code_as_it_was_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    files = {"m.py": sha("a"), "b.py": sha("b")}
    assert not remembered("run", files, tmp_path)
    remember_code("run", files, tmp_path)
    remember_code("run", dict(reversed(files.items())), tmp_path / "x" / "..")
    remember_code("other", {}, tmp_path)
    assert remembered("run", dict(reversed(files.items())), tmp_path)
    monkeypatch.chdir(tmp_path)
    assert remembered("run", files, Path())
    for run, changed, folder in (
        ("another", files, tmp_path),
        ("run", {**files, "m.py": sha("c")}, tmp_path),
        ("run", {}, tmp_path),
        ("run", {"x": sha("a")}, tmp_path),
        ("run", files, tmp_path / "copy"),
    ):
        assert not remembered(run, changed, folder)
    note = tmp_path / "state" / "robustframe" / "own-runs"
    assert len(note.read_text().splitlines()) == 2
    assert note.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("harm", ["a file for the folder", "a folder for the file", "no home"])
def test_a_home_that_cannot_be_written_only_means_being_asked(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative" if harm == "no home" else str(tmp_path))
    if harm == "a file for the folder":
        (tmp_path / "robustframe").write_text("")
    elif harm == "a folder for the file":
        (tmp_path / "robustframe" / "own-runs").mkdir(parents=True)
    else:

        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
    remember_code("run", {}, tmp_path)
    assert not remembered("run", {}, tmp_path)
