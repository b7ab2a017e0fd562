"""Pairs of a Hugging Face repository: the card and its weights, from the cache, or fetched when that is wished."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from robustframe.errors import InputError, IntegrityError, shown
from robustframe.files import WEIGHTS_BYTES, is_plain_name
from robustframe.zoo.card import Card, read_card

_PLACE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>[A-Za-z0-9][\w./-]*))?(:(?P<name>[A-Za-z0-9][\w.-]*))?",
    re.ASCII,
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 10.0
"""How long the hub may take to say what it has."""
_FILES = 100
"""Most cards of a repository."""


def fetch_card(place: str, *, download: bool = False) -> tuple[Path, Path]:
    """Find the card that ``OWNER/REPO[@REVISION][:NAME]`` names, and its weights.

    Args:
        place: the repository; a branch, tag or commit of it, ``main`` when left out; and the card's name, for a
            repository that holds more than one.
        download: ask the hub (``HF_ENDPOINT``) and fetch what is not in its client's cache (``HF_HOME``). Otherwise
            nothing leaves this machine, and the cache must have both files.

    Returns:
        The path of the card, and the repository's folder in the cache, which files there may link to.

    Raises:
        InputError: for a place that does not read, without the extra ``hub``, and for what is not there.
        IntegrityError: when the repository holds no card of this version.
    """
    match = _PLACE.fullmatch(place)
    if match is None or ".." in place:
        raise InputError(f"'hf:{place}' must read hf:OWNER/REPO, hf:OWNER/REPO@REVISION or hf:OWNER/REPO:NAME")
    repo, revision, name = match["repo"], match["revision"] or "main", match["name"]
    snapshot = _snapshot(place, repo, revision, f"{name}.json" if name else "*.json", download)
    path, card = _choose(place, snapshot, name)
    if not is_plain_name(card.weights) or any(letter in card.weights for letter in "*?["):
        raise IntegrityError(f"hf:{place}: weights {card.weights!r} must be a file name beside the card")
    # The commit, so that nobody can change the branch in between.
    _snapshot(place, repo, snapshot.name, card.weights, download)
    return path, snapshot.parents[1]


def _choose(place: str, snapshot: Path, name: str | None) -> tuple[Path, Card]:
    """Pick the card of a name, or the only one."""
    paths = [snapshot / f"{name}.json"] if name else sorted(snapshot.glob("*.json"))
    found: list[tuple[Path, Card]] = []
    failures: list[InputError] = []
    for path in paths:
        try:
            found.append((path, read_card(path)))
        except InputError as error:
            failures.append(error)
    if len(found) > 1:
        names = ", ".join(path.stem for path, _ in found)
        raise InputError(
            f"hf:{place} holds {len(found)} cards: {names}; name one, such as hf:{place}:{found[0][0].stem}"
        )
    if not found:
        why = f" ({failures[0]})" if failures else ""
        raise IntegrityError(f"hf:{place} holds no card of a pair{why}")
    return found[0]


def _snapshot(place: str, repo: str, revision: str, pattern: str, download: bool) -> Path:
    """Return the folder of a revision in the cache, with the files of a pattern in it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError("models of the hub need its client: pip install 'robustframe[hub]'") from error
    try:
        if download:
            folder = _fetched(place, repo, revision, pattern)
        else:
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[pattern], local_files_only=True))
    except InputError:
        raise
    # The client raises whatever its HTTP library does.
    except Exception as error:
        reason = " ".join(str(error).split())
        if not download:
            raise InputError(
                f"hf:{place} is not, or not whole, in the hub's cache; fetch it with --download"
            ) from error
        if isinstance(error, LocalEntryNotFoundError | EntryNotFoundError):
            reason = f"the hub cannot be reached, or has no such file: {reason}"
        raise InputError(f"hf:{place} could not be fetched: {type(error).__name__}: {reason[:300]}") from error
    if "*" not in pattern and not (folder / pattern).is_file():
        raise InputError(
            f"hf:{place} has no file {pattern} in {'the hub' if download else 'the cache; fetch it with --download'}"
        )
    return folder


def _fetched(place: str, repo: str, revision: str, pattern: str) -> Path:
    """Fetch the files of a pattern that lie at the top of a revision; return their folder in the cache.

    The client makes paths of the commit and the tags that a hub answers with, so these are looked at first; and for
    some answers it would wait without end.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

    listed = HfApi().model_info(repo, revision=revision, timeout=_SECONDS)
    names = [name for name in (file.rfilename for file in listed.siblings or []) if fnmatchcase(name, pattern)]
    names = [name for name in names if is_plain_name(name)]
    if not _COMMIT.fullmatch(listed.sha or ""):
        raise IntegrityError(f"hf:{place}: the hub answers with {shown(listed.sha)}, which is not a commit")
    if not names or len(names) > _FILES:
        raise IntegrityError(
            f"hf:{place} holds no card of a pair: {len(names)} files {pattern} lie in it, where 1 to {_FILES} are taken"
        )
    for name in names:
        said = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), timeout=_SECONDS)
        if not _COMMIT.fullmatch(said.commit_hash or "") or not is_plain_name(said.etag or ""):
            raise IntegrityError(f"hf:{place}: the hub says of {name} what would lead out of its cache")
        if (said.size or 0) > WEIGHTS_BYTES:
            raise IntegrityError(f"hf:{place}: {name} is larger than {WEIGHTS_BYTES:,} bytes, which no such file is")
        file = hf_hub_download(repo, name, revision=revision, etag_timeout=_SECONDS)
    return Path(file).parent
