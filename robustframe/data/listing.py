"""Which images a folder holds and which class each is of: everything that is left out is said, nothing is guessed."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustframe.draws import derive_seed
from robustframe.errors import InputError, shown
from robustframe.files import CARD_BYTES, decoding, read_plain

log = logging.getLogger("robustframe")

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
CLASSES = 2**16
"""Most classes of data, and of a model by name."""
EXAMPLES = 10**7
"""Most images of a folder."""
_OTHERS = 100_000
"""Files beside as many images that a folder of images may hold."""
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"})
_SAID = 3
"""How many of what is left out are named."""


@dataclass(frozen=True)
class ListedImages:
    """The images of a folder, in the order in which they are taken."""

    files: list[tuple[str, int]]
    """Each by its path below the folder, with its label."""
    classes: tuple[str, ...]
    """What each label means."""


@dataclass
class _Found:
    """What a walk through a folder met."""

    files: list[tuple[str, str]] = field(default_factory=list)
    """By the folder of the class, and the path below it."""
    left: dict[str, list[str]] = field(default_factory=dict)
    """What is left out, by why."""

    def leave(self, why: str, *paths: str) -> None:
        self.left.setdefault(why, []).extend(paths)


def list_images(path: Path, class_map: Sequence[str] | Path | None = None) -> ListedImages:
    """List a folder of images, ``CLASS/IMAGE``, and say what of it is left out.

    Args:
        path: the folder.
        class_map: the names of the class folders in the order of the model's logits, or a file of them.

    Raises:
        InputError: when there are no images, or it is unclear which folder is which class.
    """
    if not os.path.isdir(path):
        raise InputError(f"the data folder {path} does not exist")
    try:
        found, folders = _walked(path)
    except OSError as error:
        raise InputError(f"the data folder {path} cannot be read: {error.strerror or error}") from error
    if not found.files:
        raise InputError(f"{path} has no images; it needs a folder for each class with images ({IMAGE_ENDINGS[3]} ...)")
    _refuse_splits(path, found)
    counts = Counter(folder for folder, _ in found.files)
    empty = [folder for folder in folders if not counts[folder]]
    if class_map is None:
        classes = _numbered(path, folders, empty)
    else:
        classes = read_class_map(class_map)
        _check_map(path, [folder for folder in folders if counts[folder]], classes)
        found.leave("are folders without images", *empty)
    for why, paths in found.left.items():
        if paths:
            named = ", ".join(shown(each) for each in sorted(paths)[:_SAID])
            more = f" and {len(paths) - _SAID:,} more" if len(paths) > _SAID else ""
            log.warning("%s: left out, as they %s: %s%s", path, why, named, more)
    number = {name: label for label, name in enumerate(classes)}
    files = sorted(found.files, key=lambda each: derive_seed("folder", *each))
    return ListedImages([(f"{folder}/{file}", number[folder]) for folder, file in files], classes)


def _walked(path: Path) -> tuple[_Found, list[str]]:
    found = _Found()
    there = sorted(path.iterdir())
    folders = [each.name for each in there if each.is_dir() and not _hidden(each.name)]
    found.leave("are hidden", *(f"{each.name}/" for each in there if each.is_dir() and _hidden(each.name)))
    beside = [each.name for each in there if not each.is_dir()]
    found.leave("lie beside the folders of the classes", *beside)
    if len(folders) > CLASSES:
        raise InputError(
            f"{path} has {len(folders):,} folders; a folder of images has at most {CLASSES:,}, one a class"
        )
    others = 0
    for folder in folders:
        for place, inner, names in os.walk(path / folder):
            below = Path(place).relative_to(path)
            for each in [each for each in inner if _hidden(each)]:
                found.leave("are hidden", f"{(below / each).as_posix()}/")
                inner.remove(each)
            links = [each for each in inner if os.path.islink(os.path.join(place, each))]
            found.leave("are links to folders", *((below / each).as_posix() for each in links))
            images = [each for each in names if _is_image(each) and not _hidden(each)]
            # A class folder's own name is the first part.
            within = Path(place).relative_to(path / folder)
            found.files += [(folder, (within / each).as_posix()) for each in images]
            for each in names:
                if not _is_image(each) or _hidden(each):
                    why = "are hidden" if _hidden(each) else "are not images by their names"
                    found.leave(why, (below / each).as_posix())
            others += len(names) - len(images)
            # A whole disk would be searched for hours.
            if others > _OTHERS + len(found.files) or len(found.files) > EXAMPLES:
                raise InputError(
                    f"{path} is not a folder of images: it holds at least {len(found.files):,} of them and {others:,} "
                    "other files; name a folder that holds a folder of images for each class"
                )
    return found, folders


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def _hidden(name: str) -> bool:
    # What systems and notebooks leave behind; the second is of archives made on a Mac.
    return name.startswith(".") or name == "__MACOSX"


def _refuse_splits(path: Path, found: _Found) -> None:
    """Refuse a folder of splits, whose names would be taken for classes."""
    folders = {folder for folder, _ in found.files}
    if {folder.lower() for folder in folders} <= _SPLITS and all("/" in file for _, file in found.files):
        name = sorted(folders)[-1]
        raise InputError(
            f"{path} holds {', '.join(sorted(folders))}, which are splits, not classes; name one of them, "
            f"such as folder:{path / name}"
        )


def _numbered(path: Path, folders: Sequence[str], empty: Sequence[str]) -> tuple[str, ...]:
    """Return the folders in the order of their labels."""
    if empty:
        raise InputError(
            f"{path / empty[0]} has no images, so it is unclear whether it counts as a class; remove it, or say "
            "class_map = [...] in [data] of a recipe"
        )
    by_name = sorted(folders)
    if not all(name.isascii() and name.isdecimal() for name in by_name):
        return tuple(by_name)
    by_number = sorted(by_name, key=int)
    numbers = [int(name) for name in by_number]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
        raise InputError(
            f"the folders of {path} are numbers with gaps ({', '.join(by_number[:3])} ... {by_number[-1]}), so that "
            "it is unclear which class each is; say class_map = [...] in [data] of a recipe"
        )
    if by_number != by_name:
        log.warning(
            "%s: its folders are numbers and counted as such; a model trained with torchvision's ImageFolder has them "
            "in the order %s ..., which class_map = [...] in [data] of a recipe can say",
            path,
            ", ".join(by_name[:4]),
        )
    return tuple(by_number)


def read_class_map(given: Sequence[str] | Path) -> tuple[str, ...]:
    """Return the folders of classes in the order of a model's logits.

    Args:
        given: the names themselves; or a file of them: a text with one a line, or JSON, as a list or as torchvision's
            ``class_to_idx``, ``{"cat": 0, "dog": 1}``.

    Raises:
        InputError: when it does not read, or a class stands there twice or not at all.
    """
    names = list(_read_map(given) if isinstance(given, Path) else given)
    where = f"{given}: " if isinstance(given, Path) else ""
    if not names or len(names) > CLASSES or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{where}class_map must be the names of 1 to {CLASSES:,} folders, in the order of the logits")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{where}class_map has the folder {shown(twice[0])} twice")
    return tuple(names)


def _read_map(path: Path) -> Iterator[str]:
    content = read_plain(path, limit=16 * CARD_BYTES, what="the class map")
    with decoding(path, "a class map"):
        text = content.decode("utf-8-sig")
        if path.suffix != ".json":
            return (line.strip() for line in text.splitlines() if line.strip())
        held = json.loads(text)
    if not isinstance(held, dict):
        return iter(held if isinstance(held, list) else [])
    labels = list(held.values())
    if any(isinstance(label, bool) for label in labels) or sorted(map(repr, labels)) != sorted(
        map(repr, range(len(labels)))
    ):
        raise InputError(f"{path}: class_map must give each folder a number, from 0 to {len(held) - 1} and each once")
    return iter(sorted(held, key=lambda name: held[name]))


def _check_map(path: Path, folders: Sequence[str], classes: Sequence[str]) -> None:
    lacking = sorted(set(folders) - set(classes))
    if lacking:
        raise InputError(f"class_map lacks {', '.join(map(shown, lacking[:_SAID]))}, a folder of images in {path}")
