"""Fuzz one kind of file with atheris, which looks for inputs that reach new code: TARGET [libFuzzer options]."""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["robustframe", "tomllib", "json"]):
    from harness import TARGETS, attempt, make_valid, seed


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: follow.py TARGET [libFuzzer options]; TARGET is one of {', '.join(TARGETS)}")
    target = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        valid = make_valid(Path(folder))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        (corpus / "valid").write_bytes(seed(valid, target))
        atheris.Setup([*sys.argv, str(corpus)], lambda content: attempt(valid, target, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
