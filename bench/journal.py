"""A journal of results, on disk at once: an interrupted run goes on where it was, and loses nothing.

One line of JSON for each group of implementations that were measured together. The file is kept until
pytest-benchmark has saved the whole run. Lines of other versions or other code are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any


class Journal:
    """Measured groups by their key; `fingerprint` is of the code and versions with which they were
    measured.
    """

    def __init__(self, path: str, fingerprint: Mapping[str, Any]):
        self.path = path
        self.fingerprint = dict(fingerprint)
        self.groups: dict[str, Any] = dict(self._read())
        self.resumed = len(self.groups)
        self.used: set[str] = set()  # by this run

    def _read(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                lines = file.readlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # the line that was being written when the run was killed
                continue
            if entry.get("fingerprint") == self.fingerprint:
                yield entry["key"], entry["group"]

    def add(self, key: str, group: Mapping[str, Any]) -> None:
        """Remember a group. Raises OSError where the disk is full or the folder cannot be written."""
        self.groups[key] = group
        line = json.dumps({"key": key, "fingerprint": self.fingerprint, "group": group})
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0) + line)  # behind a line that was cut off, too
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Forget the file: everything in it is saved elsewhere."""
        if os.path.exists(self.path):
            os.unlink(self.path)
