"""Every figure and formula names a source that budget/data/references.json has, and every source is used."""

import datetime as dt
import json
import re
from pathlib import Path

import pytest

from budget import table

ROOT = Path(__file__).parents[1]
REFERENCES = json.loads((ROOT / "budget/data/references.json").read_text("utf-8"))
KEY = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
# `Source: key`, also across a line of a comment; `Sources: one, another`
MARK = re.compile(rf"\bSource:[\s#]+({KEY})|\bSources:[\s#]+({KEY}(?:,[\s#]+{KEY})*)")


def marked(text: str) -> set[str]:
    """The keys that comments and docstrings cite."""
    return {key for one, many in MARK.findall(text) for key in re.findall(KEY, one or many)}


def fields(value: object) -> set[str]:
    """The keys in the `source` fields of a table, at any depth."""
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if not isinstance(value, dict):
        return set()
    own = value.get("source", [])
    return set([own] if isinstance(own, str) else own).union(*map(fields, value.values()))


def cited() -> dict[str, set[str]]:
    """Cited keys, each with the files that cite it."""
    files: dict[str, set[str]] = {}
    code = [(folder, "py") for folder in ("budget", "kernels", "bench")]
    for folder, pattern in (*code, ("bench", "toml"), ("budget/data", "json")):
        for file in sorted((ROOT / folder).rglob(f"*.{pattern}")):
            text = file.read_text("utf-8")
            if file.name == "references.json":
                continue
            for key in marked(text) | (fields(json.loads(text)) if pattern == "json" else set()):
                files.setdefault(key, set()).add(str(file.relative_to(ROOT)))
    return files


def test_data_is_read_as_json_has_it():
    for file in Path(table.DATA).rglob("*.json"):
        path = file.relative_to(table.DATA).parts
        assert table.load(*path) == json.loads(file.read_bytes()), path


def test_every_cited_key_is_a_reference():
    assert {key: files for key, files in cited().items() if key not in REFERENCES} == {}


def test_every_reference_is_cited():
    assert set(REFERENCES) - set(cited()) == set()


@pytest.mark.parametrize("key", REFERENCES)
def test_a_reference_is_complete(key):
    reference = REFERENCES[key]
    assert set(reference) == {"title", "section", "url", "read"}
    assert re.fullmatch(KEY, key)
    assert re.match(r"https?://\S+$", reference["url"])
    dt.date.fromisoformat(reference["read"])
    assert reference["title"].strip()
    assert reference["section"].strip()


def test_references_are_in_alphabetical_order():
    assert list(REFERENCES) == sorted(REFERENCES)


def test_marks_are_found():
    text = "# Source: one.\nx = 1  # Source: two-2 (Table 3)\n# Source:\n# three\n# Sources: four, five.\n"
    assert marked(text) == {"one", "two-2", "three", "four", "five"}
    assert marked("# Derived. The source: nobody. Resource: none") == set()
    assert fields({"a": {"source": "one"}, "b": [{"c": {"source": ["two", "three"]}}]}) == {
        "one",
        "two",
        "three",
    }
