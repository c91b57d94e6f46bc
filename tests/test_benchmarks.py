"""The benchmarks reduce honestly: medians, ratios against the first row, and peers that are absent are said to be."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import growth, measure, tables
from benchmarks.measure import Row, Table

TABLE = Table("Load", (Row("hub", (2.0, 4.0, 9.0), {"seconds": 9.0}),
                       Row("ours", (0.1, 0.2, 0.2), {"private": 3_000_000})))
ABOUT = {"date": "2026-01-01", "processor": "a chip", "cores": 2, "python": "3.12", "load_before": 0.5, "torch": "2.13"}


def test_a_row_counts_by_its_median():
    assert TABLE.row("hub").median == 4.0


def test_ratios_are_against_the_first_row():
    line = next(line for line in tables.markdown([TABLE], ABOUT).splitlines() if line.startswith("| ours"))
    assert line == "| ours | 0.2 | 0.1 | 3 | 20.00 | 3 MB |"


def test_the_report_names_date_and_machine():
    text = tables.markdown([TABLE], ABOUT)
    assert all(word in text for word in ("2026-01-01", "a chip", "2 cores", "torch 2.13"))


def test_results_are_saved_twice(tmp_path):
    tables.save([TABLE], ABOUT, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["tables"][0]["title"] == "Load"
    assert (tmp_path / "results.md").read_text().startswith("# Measured speed")


def test_what_cannot_run_is_said_and_the_rest_is_measured():
    workers = {"json": ["imports", ".", "json"], "peer": ["imports", ".", "no_such_peer"]}
    table = measure.interleaved("Imports", workers, 1)
    assert [row.name for row in table.rows] == ["json"]
    assert "peer: not measured" in table.note and "no_such_peer" in table.note


def test_growth_measures_a_real_cache():
    rows = growth.entries((2,), rounds=1).rows
    assert [row.name for row in rows] == ["info, 2 models", "info in detail, 2 models", "verify, 2 models"]


def test_an_unknown_part_is_refused():
    with pytest.raises(SystemExit):
        command.main(["--only", "nonsense"])
