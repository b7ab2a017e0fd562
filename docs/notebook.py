"""Runs the notebook and writes it with its outputs as a page: `make notebook` writes docs/notebook.md."""

import base64
import re
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).parent
NOTEBOOK, PAGE, PICTURE = HERE / "first-hour.ipynb", HERE / "notebook.md", HERE / "notebook.png"
_SHELL = "!{sys.executable} -m "
_COLOUR = re.compile(r"\x1b\[\d+m")


def source(text: str) -> list[str]:
    """The code of a cell as blocks of Markdown: commands of a shell apart."""
    python = [line for line in text.splitlines() if not line.startswith(_SHELL)]
    shell = [line.removeprefix(_SHELL) for line in text.splitlines() if line.startswith(_SHELL)]
    # Only commands need to know which Python runs them.
    code = "\n".join(line for line in python if not (shell and line == "import sys")).strip()
    return [f"```{kind}\n{block}\n```" for kind, block in (("python", code), ("sh", "\n".join(shell))) if block]


def shown(outputs: list[nbformat.NotebookNode]) -> list[str]:
    """What a cell printed, as blocks of Markdown; its picture goes beside the page."""
    blocks, text = [], ""
    for output in outputs:
        # What is said on stderr is progress.
        text += output.get("text", "") if output.get("name") != "stderr" else ""
        data = output.get("data", {})
        if "image/png" in data:
            PICTURE.write_bytes(base64.b64decode(data["image/png"]))
            blocks.append(f"![What the cell shows]({PICTURE.name})")
        else:
            text += data.get("text/plain", "")
    text = _COLOUR.sub("", text).rstrip()
    return [*[f"```text\n{text}\n```"] * bool(text), *blocks]


def main() -> None:
    """Run the notebook in an empty folder, and write the page."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    parts = ["<!-- Written by `make notebook`. -->"]
    for cell in notebook.cells:
        parts += [cell.source] if cell.cell_type == "markdown" else [*source(cell.source), *shown(cell.outputs)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
