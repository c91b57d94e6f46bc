"""Words for people, JSON for programs."""

import json
from pathlib import Path

import pytest

from cache import report
from cache.records import (
    Exported,
    FileEntry,
    FormatTotal,
    Health,
    Info,
    ModelEntry,
    Plan,
    Problem,
    Step,
    Verdict,
)

FILE = FileEntry("pt", Path("m/A/weights.pt"), 1500, 0, "ab" * 32, "ok", 0.0, None, "hub", False)
ENTRY = ModelEntry("A", True, "ok", ("pt",), (FILE,), 1500, 0, "a/b@main:c.pt")
INFO = Info(Path("/m"), Path("/hub"), 1, 1, 1500, 0, 1500, 10**9, None, "ok",
            (FormatTotal("pt", 1, 1500, 0),), (ENTRY,))
REMOVE = Step("remove", Path("m/A/weights.pt"), "asked", 1500, "A", "pt")


@pytest.mark.parametrize("fact", [
    "Cache directory: ", "/m", "Total models:", "Total files:", "Total size:", "1.5 kB (0 B of its own)",
    "Health:", "good", "pt: 1 file, 1.5 kB", "A: 1.5 kB", "weights.pt",
])
def test_info_names(fact):
    assert fact in report.info(INFO)


def test_info_of_an_empty_cache_says_what_next():
    empty = Info(Path("/m"), Path("/hub"), 0, 0, 0, 0, 0, 10**9, None, "ok", (), ())
    assert "setup_models.py" in report.info(empty)


def test_json_of_info_reads_back():
    assert json.loads(report.as_json(INFO))["entries"][0]["files"][0]["path"] == "m/A/weights.pt"


def test_json_of_a_plan_has_its_total():
    assert json.loads(report.as_json(Plan((REMOVE,))))["frees"] == 1500


def test_imported_foreign_bytes_are_said():
    entry = ModelEntry("A", True, "ok", imported=True, official=False)
    assert "not the official bytes" in report.entry(entry)


def test_trust_on_first_download_is_said():
    assert "trusted at first download" in report.entry(ModelEntry("A", True, "ok", pinned=False))


def test_verdicts_count_the_good():
    good = Verdict("A", "pt", Path("a"), "ok", 9, 0.1)
    bad = Verdict("A", "h5", Path("b"), "corrupt", 9, 0.1, "0" * 64, "f" * 64)
    assert report.verdicts([good, bad]).endswith("1 of 2 files good.")


def test_verdict_of_corrupt_file_shows_both_digests():
    text = report.verdicts([Verdict("A", "h5", Path("b"), "corrupt", 9, 0.1, "0" * 64, "f" * 64)])
    assert "ffffffffffff" in text and "000000000000" in text


def test_nothing_to_verify_is_a_sentence():
    assert "nothing to verify" in report.verdicts([])


def test_plan_to_come_says_would():
    assert "Would free 1.5 kB" in report.plan(Plan((REMOVE,)))


def test_executed_plan_counts_only_what_was_done():
    done = Step("remove", Path("a"), "asked", 1000, done=True)
    failed = Step("remove", Path("b"), "asked", 500, error="no permission")
    text = report.plan(Plan((done, failed), executed=True))
    assert "Freed 1.0 kB. 1 of 2 steps failed." in text


def test_empty_plan_is_a_sentence():
    assert report.plan(Plan(())) == "Nothing to do."


def test_health_lists_problems():
    problem = Problem("read_only", "warning", Path("/m"))
    assert "read only" in report.health(Health("warning", (problem,), 1, 1, None, False, False))


def test_export_shows_digest():
    assert "sha256" in report.exported(Exported(Path("x.pt"), "pt", "fp16", 9, "a" * 64, ("A",)))


def test_file_name_cannot_steer_the_terminal():
    entry = ModelEntry("A", True, "ok", source="evil\x1b[2J\nname")
    assert "\x1b" not in report.entry(entry)
