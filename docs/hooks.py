"""What mkdocs does to pages: published pictures join the site, other links out of docs/ name a file of a checkout."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[1]
_PICTURE = re.compile(r"\]\(\.\./evaluations/([\w-]+)/results/picture\.svg\)")
_LEAVING = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures of the published evaluations, which lie beside docs/."""
    for picture in sorted(_ROOT.glob("evaluations/*/results/picture.svg")):
        place = f"evaluations/{picture.parents[1].name}.svg"
        files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn ``[text](../path)`` into the text and the path inside a checkout, and pictures into those of the site."""
    return _LEAVING.sub(r"\1 (`\2` in a checkout)", _PICTURE.sub(r"](evaluations/\1.svg)", markdown))
