"""File names of pages: whatever a model is called, its page stays in the site's folder and is no other model's."""

import hashlib
from collections.abc import Sequence

from robustframe.runs.units import slug

_LONGEST = 60
_RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(10))}
"""Names that Windows keeps for devices, whatever ending they have."""


def page_names(models: Sequence[tuple[str, str]]) -> list[str]:
    """Name the page of each model.

    Args:
        models: what each is called, any text, with the hash of its weights; all different.

    Returns:
        File names without ending, of letters, digits, dot, dash and underscore, at most 80 long, no two equal even
        where a file system does not tell capitals apart. A name that can stand as it is does.

    >>> page_names([("resnet20", "a"), ("../up", "b")])
    ['resnet20', '_up-31ec6f5a']
    """
    plain = [name if _stands(name) else "" for name, _ in models]
    taken = [name.casefold() for name in plain]
    return [
        given if given and taken.count(given.casefold()) == 1 else _marked(name, weights)
        for given, (name, weights) in zip(plain, models)
    ]


def _stands(name: str) -> bool:
    """Whether a name can be that of a file as it is, everywhere."""
    return name == slug(name)[:_LONGEST].rstrip(".") and name.split(".")[0].casefold() not in _RESERVED


def _marked(name: str, weights: str) -> str:
    """Make a file name of any name, with a mark by which it is this model's only."""
    stem = slug(name)[:_LONGEST].strip(".") or "_"
    if stem.split(".")[0].casefold() in _RESERVED:
        stem = f"_{stem}"
    mark = hashlib.sha256(f"{name}\n{weights}".encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{stem}-{mark}"
