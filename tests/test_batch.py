"""Many pictures at once: nothing collides, nothing stops the rest, nothing is left half-written."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import NoSpace, UsageError
from depth import archives, batch
from depth.archives import ArchiveError
from depth.outputs import Options
from tests.brightness import Brightness, picture


def files(folder: Path) -> set[str]:
    """Everything below a folder but the ledger, hidden files included."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")
            if path.is_file() and ".depthmap" not in path.parts}


def go(inputs, output, estimator=None, **settings) -> list[batch.Record]:
    return list(batch.run(inputs, output, estimator or Brightness(), **settings))


def zipped(path: Path, *names: str, source: Path, **fields) -> Path:
    """A zip that holds one picture under each of these names, as they are written here."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            for key, value in fields.items():
                setattr(entry, key, value)
            archive.writestr(entry, source.read_bytes())
    return path


def bomb(path: Path) -> Path:
    """A small zip that would unpack to more than a hundred times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.bmp", bytes(archives.RATIO_COUNTS_FROM // 3))
    return path


@pytest.fixture
def photos(tmp_path):
    """Two pictures of different sizes, one of them deeper down, and a file that is none."""
    picture(tmp_path / "photos" / "one.jpg", 12, 16)
    picture(tmp_path / "photos" / "trip" / "two.png", 30, 9)
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    return tmp_path / "photos"


# --- what comes out

def test_folder_becomes_a_folder_of_the_same_shape(photos, tmp_path):
    go([photos], tmp_path / "out")
    assert files(tmp_path / "out") == {"one_depth16.png", "trip/two_depth16.png", "report.json"}


def test_mixed_sizes_keep_their_own_size(photos, tmp_path):
    go([photos], tmp_path / "out")
    assert Image.open(tmp_path / "out/one_depth16.png").size == (16, 12)
    assert Image.open(tmp_path / "out/trip/two_depth16.png").size == (9, 30)


def test_every_format_is_written(photos, tmp_path):
    go([photos / "one.jpg"], tmp_path / "out", options=Options(("png16", "npy", "pfm", "png"), "turbo"))
    assert files(tmp_path / "out") == {"one_depth16.png", "one_depth.npy", "one_depth.pfm", "one_depth.png",
                                       "report.json"}
    assert np.load(tmp_path / "out/one_depth.npy").dtype == np.float32


def test_zip_out_holds_the_files_and_the_report(photos, tmp_path):
    go([photos], tmp_path / "depth.zip")
    with zipfile.ZipFile(tmp_path / "depth.zip") as archive:
        assert set(archive.namelist()) == {"one_depth16.png", "trip/two_depth16.png", "report.json"}
        assert archive.testzip() is None


def test_zip_in_gives_what_the_folder_gives(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(photos / "one.jpg", "one.jpg")
        archive.write(photos / "trip/two.png", "trip/two.png")
    go([tmp_path / "photos.zip"], tmp_path / "from_zip")
    go([photos], tmp_path / "from_folder")
    assert files(tmp_path / "from_zip") == files(tmp_path / "from_folder")
    one, other = (tmp_path / folder / "one_depth16.png" for folder in ("from_zip", "from_folder"))
    assert one.read_bytes() == other.read_bytes()


def test_records_count_up_to_the_total(photos, tmp_path):
    records = go([photos], tmp_path / "out")
    assert [(record.done, record.total, record.name, record.ok) for record in records] == [
        (1, 2, "one.jpg", True), (2, 2, "trip/two.png", True)]


def test_report_tells_every_picture_and_the_counts(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no")
    go([photos], tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["total"], report["ok"], report["failed"], report["complete"]) == (3, 2, 1, True)
    assert {line["name"]: line["ok"] for line in report["files"]} == {
        "bad.png": False, "one.jpg": True, "trip/two.png": True}


# --- names

def test_same_names_in_two_folders_do_not_collide(tmp_path):
    for folder, start in (("a", 0), ("b", 100)):
        picture(tmp_path / folder / "x.png", start=start)
    go([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert files(tmp_path / "out") == {"a/x_depth16.png", "b/x_depth16.png", "report.json"}


def test_same_names_given_one_by_one_are_numbered(tmp_path):
    paths = [picture(tmp_path / name) for name in ("a/x.png", "b/x.png", "b/X.jpg")]
    records = go(paths, tmp_path / "out")
    assert [record.outputs[0] for record in records] == ["x_depth16.png", "x-2_depth16.png", "X-3_depth16.png"]


@pytest.mark.parametrize(("name", "output"), [
    ("../../etc/passwd.png", "etc/passwd_depth16.png"),
    ("C:\\x.png", "C_/x_depth16.png"),
    ("Å\x00 ☃.jpg", "Å_ ☃_depth16.png"),
    ("...", "picture_depth16.png"),
])
def test_name_that_a_stranger_gave_is_told_as_it_is_and_written_tamely(tmp_path, name, output):
    path = picture(tmp_path / "in.png")
    (record,) = go([path], tmp_path / "out", names={path: name})
    assert (record.name, record.outputs) == (name, (output,)) and (tmp_path / "out" / output).is_file()


def test_a_picture_named_twice_is_done_once(photos, tmp_path):
    assert len(go([photos, photos / "one.jpg"], tmp_path / "out")) == 2


@pytest.mark.parametrize("name", ["Überblick ☃.png", "日本語.png", "a b'c\"d.png", "-o.png", "x" * 240 + ".png"])
def test_odd_names_get_an_output(name, tmp_path):
    picture(tmp_path / "in" / name)
    (record,) = go([tmp_path / "in"], tmp_path / "out")
    assert record.ok and (tmp_path / "out" / record.outputs[0]).is_file()


def test_undecodable_name_goes_into_a_zip(tmp_path):
    picture(tmp_path / "in/x.png").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png"))
    go([tmp_path / "in"], tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert len(archive.namelist()) == 2


def test_outputs_of_an_earlier_run_are_not_taken_for_pictures(photos):
    go([photos], photos / "depth")
    assert len(go([photos], photos / "depth")) == 2


def test_output_equal_to_input_is_refused(photos):
    with pytest.raises(UsageError, match="one of the inputs"):
        go([photos], photos)


# --- what goes wrong

@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\nbroken"])
def test_one_bad_picture_never_stops_the_rest(photos, tmp_path, content):
    (photos / "bad.png").write_bytes(content)
    records = {record.name: record for record in go([photos], tmp_path / "out")}
    assert records["one.jpg"].ok and records["trip/two.png"].ok
    assert "bad.png" in records["bad.png"].error
    assert not [name for name in files(tmp_path / "out") if "bad" in name]


def test_picture_that_vanishes_is_a_sentence(photos, tmp_path):
    run = batch.run([photos], tmp_path / "out", Brightness())
    (photos / "one.jpg").unlink()
    records = list(run)
    assert [record.ok for record in records] == [False, True]
    assert "one.jpg" in records[0].error or "No such file" in records[0].error


def test_unexpected_failure_is_a_sentence_and_the_rest_goes_on(photos, tmp_path, caplog):
    class Failing(Brightness):
        def predict(self, image):
            if image.name == "one.jpg":
                raise ZeroDivisionError("by nought")
            return super().predict(image)

    records = go([photos], tmp_path / "out", Failing())
    assert [record.ok for record in records] == [False, True]
    assert "ZeroDivisionError: by nought" in records[0].error
    assert "Traceback" in caplog.text


def test_full_disk_ends_the_run_and_keeps_what_is_done(photos, tmp_path, monkeypatch):
    from depth import outputs

    def full(path, depth, how):
        if "two" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return outputs.render.save_png16(path, depth)

    monkeypatch.setitem(outputs.FORMATS, "png16", ("_depth16.png", full))
    with pytest.raises(NoSpace, match="full"):
        go([photos], tmp_path / "out")
    assert files(tmp_path / "out") == {"one_depth16.png", "report.json"}


@pytest.mark.parametrize(("inputs", "sentence"), [
    (["nowhere"], "no such file or folder"), (["empty"], "no pictures here"),
])
def test_nothing_to_do_is_one_sentence_and_leaves_nothing(tmp_path, inputs, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=sentence):
        go([tmp_path / name for name in inputs], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["depth.png", "depth.npy"])
def test_output_that_looks_like_a_file_is_refused(photos, tmp_path, name):
    with pytest.raises(UsageError, match="folder or a zip"):
        go([photos], tmp_path / name)


def test_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="png16, npy, pfm, png"):
        Options(("exr",))


def test_unknown_colormap_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="inferno"):
        Options(colormap="rainbow")


# --- stop and start again

def test_second_run_skips_what_is_done(photos, tmp_path):
    go([photos], tmp_path / "out")
    again = Brightness()
    records = go([photos], tmp_path / "out", again)
    assert not again.seen and all(record.skipped and record.ok for record in records)


def test_zip_in_is_resumed_too(photos, tmp_path):
    archive = zipped(tmp_path / "in.zip", "a.jpg", "b.jpg", source=photos / "one.jpg")
    go([archive], tmp_path / "out")
    again = Brightness()
    go([archive], tmp_path / "out", again)
    assert not again.seen


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
def test_missing_or_damaged_output_is_made_again(photos, tmp_path, harm):
    go([photos], tmp_path / "out")
    path = tmp_path / "out/one_depth16.png"
    good = path.read_bytes()
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(good[:20] if harm == "truncate" else good[:-1] + bytes([good[-1] ^ 1]))
    again = Brightness()
    go([photos], tmp_path / "out", again)
    assert len(again.seen) == 1 and path.read_bytes() == good


def test_changed_picture_is_made_again(photos, tmp_path):
    go([photos], tmp_path / "out")
    picture(photos / "one.jpg", 20, 20)
    again = Brightness()
    go([photos], tmp_path / "out", again)
    assert [path.name for path in again.seen] == ["one.jpg"]


@pytest.mark.parametrize("change", [{"label": "another model"}, {"overwrite": True}, {"options": Options(("npy",))}])
def test_another_model_or_format_is_no_reason_to_skip(photos, tmp_path, change):
    go([photos], tmp_path / "out")
    again = Brightness()
    go([photos], tmp_path / "out", again, **change)
    assert len(again.seen) == 2


@pytest.mark.parametrize("line", ["", "{", "null", '{"name": "x"}', '{"outputs": 3}', "\xff\x00"])
def test_torn_ledger_costs_nothing_but_time(photos, tmp_path, line):
    go([photos], tmp_path / "out")
    (ledger,) = (tmp_path / "out/.depthmap").iterdir()
    good = ledger.read_text().splitlines()
    ledger.write_text("\n".join([good[0], line, good[1][:30]]))
    again = Brightness()
    assert all(record.ok for record in go([photos], tmp_path / "out", again))
    assert len(again.seen) == 1


def test_ledger_cannot_point_outside_its_folder(photos, tmp_path):
    go([photos], tmp_path / "out")
    (ledger,) = (tmp_path / "out/.depthmap").iterdir()
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    for line in lines:
        (digest,) = line["outputs"].values()
        line["outputs"] = {f"../out/{name}": digest for name in line["outputs"]}
    ledger.write_text("\n".join(map(json.dumps, lines)))
    again = Brightness()
    go([photos], tmp_path / "out", again)
    assert len(again.seen) == 2


def test_cancel_ends_after_the_picture_in_hand_and_reports(photos, tmp_path):
    cancel = threading.Event()
    run = batch.run([photos], tmp_path / "out", Brightness(), cancel=cancel)
    next(run)
    cancel.set()
    assert list(run) == []
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["ok"], report["complete"]) == (1, False)
    assert files(tmp_path / "out") == {"one_depth16.png", "report.json"}


def test_cancelled_zip_is_whole_and_holds_what_is_done(photos, tmp_path):
    cancel = threading.Event()
    run = batch.run([photos], tmp_path / "out.zip", Brightness(), cancel=cancel)
    next(run)
    cancel.set()
    list(run)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert set(archive.namelist()) == {"one_depth16.png", "report.json"}


def test_closed_generator_leaves_no_zip_and_nothing_beside_it(photos, tmp_path):
    run = batch.run([photos], tmp_path / "out.zip", Brightness())
    next(run)
    run.close()
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_interrupt_leaves_nothing_half_written(photos, tmp_path):
    class Interrupted(Brightness):
        def predict(self, image):
            if image.name == "two.png":
                raise KeyboardInterrupt
            return super().predict(image)

    with pytest.raises(KeyboardInterrupt):
        go([photos], tmp_path / "out", Interrupted())
    assert files(tmp_path / "out") == {"one_depth16.png", "report.json"}


def test_existing_zip_is_kept_unless_overwriting(photos, tmp_path):
    (tmp_path / "out.zip").write_text("precious")
    with pytest.raises(UsageError, match="there already"):
        go([photos], tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_text() == "precious"
    assert all(record.ok for record in go([photos], tmp_path / "out.zip", overwrite=True))


# --- what strangers may ask for

def test_too_many_pictures_are_refused_before_the_first(photos, tmp_path):
    with pytest.raises(UsageError, match="at most 1, got 2"):
        go([photos], tmp_path / "out.zip", limits=batch.Limits(pictures=1))
    assert not (tmp_path / "out.zip").exists()


def test_zip_that_grows_too_large_ends_whole_and_says_that_it_is_not_complete(photos, tmp_path):
    records = go([photos], tmp_path / "out.zip", limits=batch.Limits(bytes=1))
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        report = json.loads(archive.read("report.json"))
        assert set(archive.namelist()) == {"one_depth16.png", "report.json"}
    assert (len(records), report["total"], report["complete"]) == (1, 2, False)


# --- hostile archives

@pytest.mark.parametrize(("name", "reason"), [
    ("../evil.png", "out of the archive"), ("/etc/evil.png", "out of the archive"),
    ("a/../../evil.png", "out of the archive"), ("..\\evil.png", "out of the archive"),
    ("C:/evil.png", "out of the archive"), ("e\nvil.png", "control characters"),
    ("inner.zip", "archive inside"), ("photos.tar.gz", "archive inside"),
])
def test_tricky_entry_is_refused_and_the_rest_goes_on(photos, tmp_path, name, reason):
    archive = zipped(tmp_path / "in.zip", name, "good.jpg", source=photos / "one.jpg")
    before = files(tmp_path)
    records = go([archive], tmp_path / "out")
    assert [record.ok for record in records] == [False, True]
    assert reason in records[0].error
    assert files(tmp_path) - before == {"out/good_depth16.png", "out/report.json"}


def test_link_in_an_archive_is_refused(photos, tmp_path):
    archive = zipped(tmp_path / "in.zip", "link.png", source=photos / "one.jpg",
                     external_attr=(stat.S_IFLNK | 0o777) << 16)
    (record,) = go([archive], tmp_path / "out")
    assert "link" in record.error


def test_bomb_is_refused_before_anything_is_unpacked(tmp_path):
    estimator = Brightness()
    with pytest.raises(ArchiveError, match="too much"):
        go([bomb(tmp_path / "bomb.zip")], tmp_path / "out", estimator)
    assert not estimator.seen and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("limit", "value"), [("MAX_ENTRIES", 1), ("MAX_BYTES", 100)])
def test_archive_beyond_a_limit_is_refused(photos, tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(archives, limit, value)
    archive = zipped(tmp_path / "in.zip", "a.jpg", "b.jpg", source=photos / "one.jpg")
    with pytest.raises(ArchiveError, match=str(value)):
        go([archive], tmp_path / "out")


def test_entry_larger_than_it_says_is_damaged_and_gone(photos, tmp_path):
    archive = zipped(tmp_path / "in.zip", "a.jpg", source=photos / "one.jpg", compress_type=zipfile.ZIP_DEFLATED)
    small = (10).to_bytes(4, "little")
    packed = archive.read_bytes()
    size = (photos / "one.jpg").stat().st_size.to_bytes(4, "little")
    archive.write_bytes(packed.replace(size, small))
    (record,) = go([archive], tmp_path / "out")
    assert not record.ok and "damaged" in record.error


def test_flipped_byte_in_an_entry_is_told(photos, tmp_path):
    archive = zipped(tmp_path / "in.zip", "a.jpg", source=photos / "one.jpg")
    packed = bytearray(archive.read_bytes())
    packed[200] ^= 0xFF
    archive.write_bytes(packed)
    (record,) = go([archive], tmp_path / "out")
    assert "damaged" in record.error and "CRC" in record.error


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"text"])
def test_broken_archive_is_one_sentence(tmp_path, content):
    (tmp_path / "in.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"cannot be read.*in\.zip"):
        go([tmp_path / "in.zip"], tmp_path / "out")


def test_clutter_of_other_systems_is_not_even_mentioned(photos, tmp_path):
    archive = zipped(tmp_path / "in.zip", "__MACOSX/._a.jpg", ".DS_Store", "Thumbs.db", "a.jpg",
                     source=photos / "one.jpg")
    assert [record.name for record in go([archive], tmp_path / "out")] == ["a.jpg"]


def test_temporary_files_of_an_archive_are_gone(photos, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    go([zipped(tmp_path / "in.zip", "a.jpg", source=photos / "one.jpg")], tmp_path / "out.zip")
    assert not list(scratch.iterdir())
