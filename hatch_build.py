"""Puts batteries and evaluations into the wheel; the scripts beside them stay in the checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Shipped(BuildHookInterface[Any]):
    """Adds what lies beside the package in a checkout, below ``robustframe/_shipped``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        folders = [root / "attacks", *(recipe.parent for recipe in sorted(root.glob("evaluations/*/recipe.toml")))]
        for folder in folders:
            place = folder.relative_to(root).as_posix()
            build_data["force_include"][str(folder)] = f"robustframe/_shipped/{place}"
