"""What the documents show is what the program does."""

import json
import re

import pytest
import readme

TEXTS = {path.name: path.read_text("utf-8") for path in readme.DOCUMENTS}
BLOCKS = [
    pytest.param(block, id=readme.commands(block)[0])
    for text in TEXTS.values()
    for block in readme.BLOCK.findall(text)
]
PAGES = [
    readme.ROOT / "README.md",
    readme.ROOT / "CONTRIBUTING.md",
    *sorted((readme.ROOT / "docs").rglob("*.md")),
]
CODE = [code for text in TEXTS.values() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_commands_print_what_they_show(block):
    assert readme.filled(block) == block, "python tests/readme.py writes it anew"


@pytest.mark.parametrize("name", readme.PICTURES)
def test_pictures_are_what_their_command_draws(name):
    command = readme.PICTURES[name]
    assert f"({name})" in TEXTS["README.md"]
    assert readme.printed(command) == (readme.ROOT / name).read_text("utf-8"), "python tests/readme.py"


@pytest.mark.parametrize("code", CODE)
def test_python_runs(code):
    exec(compile("import budget\n" + code, "README.md", "exec"), {})  # noqa: S102 - the documents' own code


@pytest.mark.slow
def test_the_notebook_shows_what_its_cells_say():
    assert readme.run_notebook() == readme.NOTEBOOK.read_text("utf-8"), "python tests/readme.py"


def test_lines_fit_a_terminal():
    blocks = (block for text in TEXTS.values() for block in readme.BLOCK.findall(text))
    assert [line for block in blocks for line in block.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("path", [readme.ROOT / "README.md", readme.ACCURACY], ids=lambda p: p.name)
def test_figures_of_the_scoreboard_are_repeated_as_they_are(path):
    text = path.read_text("utf-8")
    rows = [row for rows in readme.REPEATED.values() for row in rows if row.partition("{")[0] in text]
    assert len(rows) >= 2
    assert readme.repeated(text) == text, "python tests/readme.py"


def anchors(text):
    """The anchors that headings get: lower case, spaces as hyphens, no other marks."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", path.read_text("utf-8")):
        if not target.startswith("http"):
            page = path.parent / target if target else path
            assert page.exists(), target
            assert not anchor or anchor in anchors(page.read_text("utf-8")), f"{target}#{anchor}"


def test_the_house_has_all_that_is_there():
    text = (readme.ROOT / "docs" / "design.md").read_text("utf-8")
    house = text.partition("\nbudget/\n")[2].partition("\n```")[0]
    told = set(re.findall(r"\b(\w+\.py|\w+/)(?=\s)", house.partition("\nkernels/")[0]))
    folder = readme.ROOT / "budget"
    there = {f.name if f.is_file() else f"{f.name}/" for f in folder.iterdir() if not f.name.startswith("__")}
    assert told - {"kinds/"} == there - {"kernels/", "bench/", "py.typed"}


@pytest.mark.parametrize(("kind", "folder"), [("A family", "families"), ("A stack", "stacks")])
def test_every_key_of_a_file_of_data_is_told(kind, folder):
    data = readme.ROOT / "budget" / "data"
    section = (data / "README.md").read_text("utf-8").partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    told = {
        key
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    assert told == {
        key for path in (data / folder).glob("*.json") for key in json.loads(path.read_text("utf-8"))
    }
