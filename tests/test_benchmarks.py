"""The benchmarks reduce honestly: medians, ratios, bars that can be missed; peers that are absent are said to be."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import __main__ as command
from benchmarks import bars, entries, growth, measure, memory, tables
from benchmarks.bars import HUB, LOAD, OWN
from benchmarks.measure import Row, Table

TABLE = Table("Load", (Row("hub", (2.0, 4.0, 9.0), {"seconds": 9.0}),
                       Row("ours", (0.1, 0.2, 0.2), {"private": 3_000_000})))
ABOUT = {"date": "2026-01-01", "processor": "a chip", "cores": 2, "python": "3.12", "load_before": 0.5, "torch": "2.13"}
PARTS = {"load": (ABOUT, [TABLE])}


def test_a_row_counts_by_its_median():
    assert TABLE.row("hub").median == 4.0


def test_ratios_are_against_the_first_row():
    line = next(line for line in tables.markdown(PARTS).splitlines() if line.startswith("| ours"))
    assert line == "| ours | 0.2 | 0.1 | 3 | 20.00 | 3 MB |"


def test_the_report_names_date_and_machine():
    text = tables.markdown(PARTS)
    assert all(word in text for word in ("2026-01-01", "a chip", "2 cores", "torch 2.13"))


def test_results_are_saved_and_read_again(tmp_path):
    tables.save(PARTS, tmp_path)
    assert tables.read(tmp_path) == PARTS
    assert (tmp_path / "results.md").read_text().startswith("# Measured speed")


def test_results_that_cannot_be_read_count_as_none(tmp_path):
    (tmp_path / "results.json").write_text("half a file")
    assert tables.read(tmp_path) == {}


def test_the_page_shows_the_bars_between_its_marks(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"above\n{tables.BEGIN}\nold\n{tables.END}\nbelow")
    tables.show(PARTS, page)
    text = page.read_text()
    assert text.startswith("above") and text.endswith("below") and "old" not in text and "2026-01-01" in text


def test_parts_of_one_machine_share_a_line_from_the_first_date_to_the_last():
    later = {**ABOUT, "date": "2026-01-03", "load_before": 1.5}
    lines = [tables.words(about) for about in tables.machines({"load": (later, []), "start": (ABOUT, [])})]
    assert lines == ["2026-01-01 to 2026-01-03, a chip, 2 cores, Python 3.12; torch 2.13. Load average before: 1.5."]


def test_parts_of_two_machines_have_a_line_each():
    other = {**ABOUT, "processor": "another chip"}
    lines = [tables.words(about) for about in tables.machines({"load": (ABOUT, []), "start": (other, [])})]
    assert [line.split(", ")[:2] for line in lines] == [["2026-01-01", "a chip"], ["2026-01-01", "another chip"]]


# ---- the bars --------------------------------------------------------------------------------------------------------


def loads(seconds: float, private: int) -> Table:
    return Table(LOAD.format("DPT_Large"), (Row(HUB, (10.0,)), Row(".pt", (seconds,), {"private": private})))


@pytest.mark.parametrize(("seconds", "private", "met"), [(0.1, 10**8, [True, True]), (0.2, 2 * 10**8, [False, False])])
def test_a_bar_can_be_missed(seconds, private, met):
    assert [one.met for one in bars.judge([loads(seconds, private)])] == met


def test_a_bar_says_what_was_wanted_and_found():
    one = bars.judge([loads(0.1, 10**8)])[0]
    assert (one.wanted, one.measured) == ("≥ 60 ×", "100 ×")


def test_what_was_not_measured_is_no_bar():
    assert bars.judge([Table(LOAD.format("DPT_Large"), (Row(HUB, (10.0,)),))]) == []


def test_the_fastest_peer_counts():
    rows = (Row("slow", (4.0,), {"peer": True}), Row("fast", (2.0,), {"peer": True}), Row(OWN, (1.0,)),
            Row(f"{OWN}, eager", (0.1,)))
    assert bars.against_fastest_peer(Table("", rows)) == 2.0


def test_a_gpu_is_judged_with_as_many_pictures_at_once_as_the_peer():
    rows = [Row(name, (seconds,), {"peer": peer, "batch": batch}) for name, seconds, peer, batch in (
        ("transformers", 6.0, True, 1), ("transformers", 4.0, True, 8), (OWN, 3.0, None, 1), (OWN, 2.5, None, 1),
        (OWN, 1.0, None, 8))]
    assert [bars.gpu(Table("", tuple(rows)), batch) for batch in (1, 8)] == [2.4, 4.0]


def test_every_bars_table_is_one_that_a_part_makes():
    sources = " ".join(path.read_text() for path in command.HERE.glob("*.py"))
    for bar in bars.BARS:
        words = re.split(r"DPT_Large|MiDaS_small|Tiny|\d+", bar.title)
        assert all(word in sources for word in words), bar.title


def test_an_entry_point_over_its_budget_is_said():
    rows = (Row(entries.NOTHING, (0.02,)), Row(entries.OPTIONS, (0.02,)), Row("app.py --help", (0.05,)),
            Row("setup_models.py --help", (0.07,)), Row(entries.LOOK, (0.05,)), Row("manage_models.py info", (0.08,)))
    found = entries.judged(Table("", rows))
    assert [found.row(name).facts["within"] for name in
            ("app.py --help", "setup_models.py --help", "manage_models.py info")] == [True, False, True]


# ---- running ---------------------------------------------------------------------------------------------------------


def test_what_cannot_run_is_said_and_the_rest_is_measured():
    runs = {"json": ["-c", "import json; print('{\"seconds\": 1}')"], "peer": ["-c", "import no_such_peer"]}
    table = measure.interleaved("Imports", runs, 2)
    assert [(row.name, row.samples) for row in table.rows] == [("json", (1.0, 1.0))]
    assert "peer: not measured" in table.note and "no_such_peer" in table.note


def test_a_start_is_timed_to_its_answer_and_not_to_its_end():
    wall, _, answer = measure.run(["-c", "import time; print('{}', flush=True); time.sleep(0.4)"])
    assert answer["ended"] - wall >= 0.3


def test_a_command_without_an_answer_is_timed_to_its_end():
    wall, _, answer = measure.run(["-c", "import time; time.sleep(0.4)"])
    assert wall >= 0.4 and answer == {}


def test_a_process_that_hangs_is_ended():
    with pytest.raises(RuntimeError, match="code -9 after 1 s"):
        measure.run(["-c", "import time; time.sleep(60)"], timeout=1)


@pytest.fixture
def prepared(monkeypatch):
    """As if all that is measured on had been made."""
    monkeypatch.setattr(command.material, "prepare", lambda folder, names: None)
    monkeypatch.setattr(command.material, "peers", lambda ready, names: None)


def test_a_part_that_fails_is_a_line(prepared, monkeypatch, tmp_path, capsys):
    def fail(run):
        raise OSError("no disk")

    monkeypatch.setitem(command.PARTS, "cold", fail)
    monkeypatch.setitem(command.PARTS, "load", lambda run: [TABLE])
    assert command.main(["--only", "cold", "load", "--output", str(tmp_path), "--work", str(tmp_path)]) == 0
    assert "no disk" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "results.json").read_text())["parts"]) == {"cold", "load"}


def test_a_part_measured_again_leaves_the_others(prepared, monkeypatch, tmp_path):
    tables.save({"start": (ABOUT, [TABLE])}, tmp_path)
    monkeypatch.setitem(command.PARTS, "load", lambda run: [])
    command.main(["--only", "load", "--output", str(tmp_path), "--work", str(tmp_path)])
    assert list(tables.read(tmp_path)) == ["load", "start"]


def test_what_a_gpu_gave_stays_where_there_is_none(prepared, monkeypatch, tmp_path):
    tables.save({"gpu": (ABOUT, [TABLE])}, tmp_path)
    monkeypatch.setattr(command.gpu, "is_there", lambda: False)
    command.main(["--only", "gpu", "--output", str(tmp_path), "--work", str(tmp_path)])
    assert tables.read(tmp_path)["gpu"] == (ABOUT, [TABLE])


def test_two_processes_that_cannot_load_are_a_line(tmp_path):
    (tmp_path / "Tiny.pt").write_bytes(bytes(7_000_000))
    table = memory.two_processes(tmp_path, "Tiny", {"broken": ["no_such_action", str(tmp_path), "Tiny"]})
    assert table.rows == () and "broken: not measured" in table.note


def test_growth_measures_a_real_cache():
    rows = growth.entries((2,), rounds=1).rows
    assert [row.name for row in rows] == ["info, 2 models", "info in detail, 2 models", "verify, 2 models"]


def test_without_a_gpu_one_line_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    table = command.on_gpu(command.Run(tmp_path, True))[0]
    assert table.rows == () and "no CUDA device" in table.note


def test_an_unknown_part_is_refused():
    with pytest.raises(SystemExit):
        command.main(["--only", "nonsense"])
