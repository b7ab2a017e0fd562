"""What mkdocs does to pages: links that leave docs/ lead to files of a checkout, which the site does not have."""

import re
from typing import Any

_LEAVING = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn ``[text](../path)`` into the text and the path inside a checkout."""
    return _LEAVING.sub(r"\1 (`\2` in a checkout)", markdown)
