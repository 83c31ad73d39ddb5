"""Build hook: the top-level folders kernels/ and bench/ go into the wheel below budget/.

pyproject.toml's `force-include` would do the same, but for editable installs too, and a copy of two
folders beside a link to the checkout hides the link. An editable install is a path to a folder in which
`budget` is the only name: type checkers and editors follow it, and `kernels` stays Hugging Face's.
"""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EDITABLE = "build/editable"  # pyproject.toml's dev-mode-dirs


class Folders(BuildHookInterface):
    """Adds budget.kernels and budget.bench to wheels; makes the folder of editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a build; version: "standard" or "editable"."""
        if version == "editable":
            folder = os.path.join(self.root, EDITABLE)
            os.makedirs(folder, exist_ok=True)
            if not os.path.lexists(link := os.path.join(folder, "budget")):
                os.symlink(os.path.join(self.root, "budget"), link, target_is_directory=True)
        else:
            # Without bench/results and bench/scaling: records belong to a checkout.
            for place in ("kernels", "bench", "bench/campaign", "bench/published"):
                for name in self._sources(place):
                    build_data["force_include"][f"{place}/{name}"] = f"budget/{place}/{name}"

    def _sources(self, place: str) -> list[str]:
        path = os.path.join(self.root, place)
        names = os.listdir(path) if os.path.isdir(path) else []
        return [name for name in names if name.endswith((".py", ".toml"))]
