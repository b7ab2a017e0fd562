"""From what a recipe says of its data to the examples."""

from pathlib import Path

from robustframe.data import Dataset, from_file, from_folder, load
from robustframe.errors import InputError
from robustframe.recipe import DataSpec


def load_examples(spec: DataSpec, *, folder: Path, data_root: Path | None = None, download: bool = False) -> Dataset:
    """Load the examples that a recipe names.

    Args:
        spec: a data set by name, ``file:PATH`` or ``folder:PATH``.
        folder: what a relative ``PATH`` is relative to.
        data_root: where data sets that do not ship lie.
        download: allow them to be downloaded.

    Raises:
        InputError: for an unknown data set, data that cannot be read, or fewer examples than asked for.
    """
    kind, colon, place = spec.use.partition(":")
    if colon and kind in ("file", "folder") and spec.split not in ("test", "given"):
        raise InputError(f"{spec.use} has no splits; leave split = {spec.split!r} out")
    if colon and kind == "folder":
        return from_folder(
            folder / place, name=spec.use, count=spec.count, resize=spec.resize, crop=spec.crop,
            class_map=folder / spec.class_map if isinstance(spec.class_map, str) else spec.class_map,
        )  # fmt: skip
    if spec.resize is not None or spec.crop is not None or spec.class_map is not None:
        raise InputError(f"resize, crop and class_map are for data = 'folder:PATH'; {spec.use} is taken as it is")
    if colon and kind == "file":
        data = from_file(folder / place, name=spec.use)
    else:
        data = load(spec.use, spec.split, data_root=data_root, download=download)
    return data if spec.count is None else data.first(spec.count)
