"""Records of a campaign are imported, or refused in one line."""

import errno
import json
import os
from pathlib import Path

import pytest
from budget.bench.campaign import __main__ as campaign
from budget.bench.campaign import importing, parent
from budget.bench.campaign.refused import RefusedError
from campaign_records import folder, line

from budget.kernels import settings
from budget.measured import record


def refused(capsys, *argv):
    assert campaign.main([*argv]) == 2
    output = capsys.readouterr().err
    assert output.startswith("campaign: ")
    assert output.count("\n") == 1
    return output


def test_records_of_other_sources_are_refused(tmp_path, capsys):
    results = str(tmp_path / "results")
    other = folder(tmp_path / "run", line(source="0123"))
    assert "0123" in refused(capsys, "import", other, "--results", results)
    assert not os.path.exists(results)
    assert campaign.main(["import", other, "--results", results, "--records-only", "--any-source"]) == 0
    assert [r.seconds for r in record.read([results], "h200")] == [1.5e-3]


def test_a_truncated_line(tmp_path, capsys):
    """The last may be: the run was killed. One in between says that the file is broken."""
    results = str(tmp_path / "results")
    cut = folder(tmp_path / "cut", line(), line(case="4x4"), end='\n{"task": "C/')
    assert campaign.main(["import", cut, "--results", results, "--records-only"]) == 0
    assert len(record.read([results], "h200")) == 2
    capsys.readouterr()
    broken = folder(tmp_path / "broken", line(), line(), end="\n")
    path = Path(broken, "records.jsonl")
    path.write_text(path.read_text().replace('"task"', '"ta', 1))
    assert "line 1" in refused(capsys, "import", broken, "--results", results)


def test_a_later_run_wins(tmp_path):
    results = str(tmp_path / "results")
    first, second = (
        folder(tmp_path / name, line(seconds=s)) for name, s in (("1", (1e-3, 1e-3)), ("2", (9e-4, 9e-4)))
    )
    assert campaign.main(["import", first, second, "--results", results, "--records-only"]) == 0
    assert [r.seconds for r in record.read([results], "h200")] == [9e-4]
    assert sorted(p.name[:4] for p in Path(results).rglob("*.json")) == ["0001", "0002"]


def test_the_journal_of_an_interrupted_suite(tmp_path):
    """`pytest bench/` leaves one that git ignores: it can be imported too."""
    place = tmp_path / "device"
    place.mkdir()
    kept = {k: v for k, v in line().items() if k in ("key", "fingerprint", "group")}
    (place / "unfinished-full.jsonl").write_text("\n".join([json.dumps(kept), json.dumps(kept)[:40]]))
    results = str(tmp_path / "results")
    assert campaign.main(["import", str(place), "--results", results, "--records-only"]) == 0
    assert [r.seconds for r in record.read([results], "h200")] == [1.5e-3]


def test_bad_places(tmp_path, capsys):
    assert "records.jsonl" in refused(capsys, "import", str(tmp_path))
    out = ["--out", str(tmp_path)]
    assert "--seconds" in refused(capsys, "run", "--on", "cpu", "--seconds", "5", *out)
    taken = tmp_path / "file"
    taken.write_text("")
    assert "--out" in refused(capsys, "run", "--on", "cpu", "--seconds", "60", "--out", str(taken))


def test_no_gpu_where_one_is_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("budget.bench.campaign.run._gpu", lambda: False)
    assert "no GPU" in refused(capsys, "run", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_settings_that_were_faster_are_merged(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(Path(settings.PATH).read_text())
    before = settings.load(path)
    found = {
        "case": "softmax/4096x8192", "kernel": "softmax", "class": "middle", "kept": True, "seconds": 1e-5,
        "best_ratio": 1.2, "setting": {"COLUMNS": 8192, "TILE": 8192, "num_warps": 16},
    }  # fmt: skip
    lines = [
        {"environment": {"gpu": "NVIDIA H200", "capability": [9, 0]}},
        {"tuned": found, "fingerprint": {"versions": {"torch": "2.11.0", "triton": "3.6.0"}}},
        {"tuned": {**found, "kernel": "matmul", "kept": False}},
    ]
    assert importing.merge(lines, str(path)) == ["softmax sm90 middle"]
    after = settings.load(path)
    merged = after["softmax"]["sm90"]["middle"]
    assert "NVIDIA H200" in merged.pop("chosen_by")
    assert merged == found["setting"]
    before["softmax"]["sm90"]["middle"] = after["softmax"]["sm90"]["middle"] = {}
    assert after == before


def test_settings_that_cannot_be_merged_are_refused_in_one_line(tmp_path, monkeypatch):
    """A full disk; a run whose first line, which tells of the GPU, is lost."""
    found = {"kernel": "softmax", "class": "middle", "kept": True, "case": "softmax/4096x8192",
             "seconds": 1e-5, "best_ratio": 1.2, "setting": {"num_warps": 16}}  # fmt: skip
    line = {"task": "E/x", "tuned": found, "fingerprint": {"versions": {}}}
    path = tmp_path / "settings.toml"
    path.write_text(Path(settings.PATH).read_text())
    before = path.read_bytes()
    with pytest.raises(RefusedError, match="tells of the GPU"):
        importing.merge([line], str(path))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importing, "replace", full)
    with pytest.raises(RefusedError, match="No space left"):
        importing.merge([{"environment": {"capability": [9, 0]}}, line], str(path))
    assert path.read_bytes() == before


def test_a_line_that_does_not_fit_leaves_nothing_of_it(tmp_path):
    """Half a line would spoil the next one."""
    kept = parent.Records(str(tmp_path))
    kept.add({"task": "a"})
    before = Path(kept.path).read_bytes()
    with open(kept.path, "ab", buffering=0) as file, pytest.raises(OSError, match="space"):
        parent._append(Half(file), b'{"task": "b"}\n')
    assert Path(kept.path).read_bytes() == before


class Half:
    """A file on a disk that takes half of what is written."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        return self.file.write(data[: len(data) // 2])
