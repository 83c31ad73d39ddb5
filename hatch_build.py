"""Build hook: puts the top-level folders kernels/ and bench/ into the wheel as budget.kernels and budget.bench.

pyproject.toml's `force-include` would do the same, but for editable installs too, and a copy of two
folders beside a link to the checkout hides the link.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Folders(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"] |= {"kernels": "budget/kernels", "bench": "budget/bench"}
