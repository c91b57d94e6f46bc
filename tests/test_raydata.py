"""The same work on a real local Ray cluster of two workers; one of them is killed on the way.

The cluster starts once for the file, keeps its logs in a folder of its own and takes it along at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cache.errors import UnknownModel, UsageError
from depth import raydata
from depth.__main__ import main
from depth.outputs import Options
from tests.brightness import Brightness, Downloaded, Killed, Logged, picture
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DISABLE_IMPORT_WARNING="1", RAY_DEDUP_LOGS="0",
                  RAY_worker_niceness="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
                  RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))  # else it leaves one in the home folder


@pytest.fixture(scope="module")
def cluster():
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # inherited by the workers
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder, object_store_memory=100 * 2**20,
             log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    monkeypatch.undo()
    shutil.rmtree(folder, ignore_errors=True)


def worked(folder: Path) -> list[str]:
    return [line for log in folder.glob("*.log") for line in log.read_text().splitlines()]


@pytest.fixture
def photos(tmp_path):
    """40 pictures, two of one name in folders of their own, and a bad one."""
    for number in range(40):
        picture(tmp_path / "photos" / f"{number:02d}.png", 8, 12, number)
    picture(tmp_path / "photos/deeper/07.png")
    (tmp_path / "photos/bad.png").write_bytes(b"no picture")
    (tmp_path / "log").mkdir()
    return tmp_path / "photos"


def table(path: Path, photos: Path, rows: int = 20) -> Path:
    import pyarrow
    import pyarrow.parquet

    paths = sorted(photos.glob("[0-9]*.png"))[:rows]
    pyarrow.parquet.write_table(pyarrow.table({"image": [path.read_bytes() for path in paths],
                                               "name": [path.name for path in paths]}), path, row_group_size=5)
    return path


def test_killed_worker_loses_nothing_and_a_restart_skips_what_is_done(cluster, photos, tmp_path):
    records = list(raydata.run(photos, tmp_path / "out", load=partial(Killed, tmp_path / "log")))
    assert (tmp_path / "log/killed").exists()
    assert {record.name: record.ok for record in records if not record.ok} == {"bad.png": False}
    assert sorted(record.done for record in records) == list(range(1, 43))
    assert len(list((tmp_path / "out").rglob("*_depth16.png"))) == 41
    assert len(list((tmp_path / "log").glob("*.log"))) >= 2  # more than one process worked

    shutil.rmtree(tmp_path / "log")
    (tmp_path / "log").mkdir()
    again = list(raydata.run(photos, tmp_path / "out", load=partial(Logged, tmp_path / "log")))
    assert sum(record.skipped for record in again) == 41
    assert worked(tmp_path / "log") == ["bad.png"]


def test_killed_job_goes_on_where_it_was(cluster, photos, tmp_path):
    """The whole job is killed outright, driver and workers; the next one does only what was not written."""
    out, log = tmp_path / "out", tmp_path / "log"
    code = f"""
import os, signal
from functools import partial
from pathlib import Path
import ray
from depth import raydata
from tests.brightness import Logged
ray.init(address={cluster.get_runtime_context().gcs_address!r}, log_to_driver=False, logging_level="ERROR")
for record in raydata.run({str(photos)!r}, {str(out)!r}, load=partial(Logged, Path({str(log)!r}))):
    if record.done == 10:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -9, killed.stderr
    assert len(list(out.rglob("*_depth16.png"))) >= 9  # workers may have been ahead of their records

    shutil.rmtree(log)
    log.mkdir()
    again = list(raydata.run(photos, out, load=partial(Logged, log)))
    assert len(list(out.rglob("*_depth16.png"))) == 41 and [one.name for one in again if not one.ok] == ["bad.png"]
    assert sum(record.skipped for record in again) >= 9 and len(worked(log)) <= 33


def test_killed_worker_loses_nothing_of_a_table(cluster, photos, tmp_path):
    import pyarrow.parquet

    source, target = table(tmp_path / "in.parquet", photos), tmp_path / "out.parquet"
    records = list(raydata.run(source, target, load=partial(Killed, tmp_path / "log")))
    assert (tmp_path / "log/killed").exists() and len(records) == 20 and all(record.ok for record in records)
    rows = pyarrow.parquet.read_table(target).to_pylist()
    assert sorted(row["name"] for row in rows) == [f"{number:02d}.png" for number in range(20)]  # each once


def test_shell_shares_the_work_with_a_real_model_and_gives_what_one_machine_gives(cluster, photos, tmp_path, capsys):
    names = [str(path) for path in sorted(photos.glob("0*.png"))]
    for output, more in (("shared", ["--ray", "2"]), ("alone", [])):
        assert main([*names, "-o", str(tmp_path / output), "--model", "Tiny", "--format", "npy", "--json", *more]) == 0
    *records, last = map(json.loads, capsys.readouterr().out.splitlines()[:11])
    assert last["summary"]["ok"] == 10 and sorted(record["done"] for record in records) == list(range(1, 11))
    for path in sorted((tmp_path / "alone").glob("*.npy")):
        assert np.allclose(np.load(tmp_path / "shared" / path.name), np.load(path), rtol=1e-4, atol=1e-2)


def test_parquet_in_and_out_and_a_restart_skips_what_is_done(cluster, photos, tmp_path):
    import pyarrow.parquet

    source, target = table(tmp_path / "in.parquet", photos), tmp_path / "out.parquet"
    load = partial(Logged, tmp_path / "log")
    records = list(raydata.run(source, target, load=load, options=Options(("npy", "png16"))))
    assert len(records) == 20 and all(record.ok for record in records)
    rows = pyarrow.parquet.read_table(target).to_pylist()
    assert sorted(row["name"] for row in rows) == [f"{number:02d}.png" for number in range(20)]
    (tmp_path / "one.npy").write_bytes(next(row["npy"] for row in rows if row["name"] == "03.png"))
    expected = Brightness().predict(photos / "03.png").values
    assert np.array_equal(np.load(tmp_path / "one.npy"), expected)

    again = list(raydata.run(source, target, load=load, options=Options(("npy", "png16"))))
    assert all(record.skipped for record in again) and len(worked(tmp_path / "log")) == 20
    assert len(pyarrow.parquet.read_table(target)) == 20


def test_glob_is_done_and_the_shell_goes_on_with_the_work(cluster, photos, tmp_path):
    list(raydata.run(str(photos / "0*.png"), tmp_path / "out", load=Brightness))
    shell = Brightness()
    main([*map(str, sorted(photos.glob("[01]*.png"))), "-o", str(tmp_path / "out")], estimator=shell)
    assert [Path(image).name for image in shell.seen] == [f"{number}.png" for number in range(10, 20)]


def test_two_workers_share_the_machines_cache_and_one_download(cluster, photos, tmp_path):
    """Two workers that load at the same time; the server counts the bytes that left it."""
    import pyarrow

    with HubServer() as server:
        file = server.add("org/model", "weights.pt", bytes(3 * 2**20))
        environ = {"HF_ENDPOINT": server.endpoint, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        task = raydata.Task(partial(Downloaded, tmp_path / "log", file, environ), "x", Options(), tmp_path / "out")
        workers = [cluster.remote(raydata.Worker).remote(task) for _ in range(2)]
        portions = [pyarrow.Table.from_pylist([{"path": str(photos / name), "name": name, "stem": name, "rows": 1}])
                    for name in ("00.png", "01.png")]
        answers = cluster.get([worker.__call__.remote(portion)
                               for worker, portion in zip(workers, portions, strict=True)])
        assert [answer["ok"].to_pylist() for answer in answers] == [[True], [True]]
        assert len(list((tmp_path / "log").glob("*.log"))) == 2  # two processes
        assert server.sent == 3 * 2**20


def test_model_that_cannot_be_loaded_is_our_own_sentence(cluster, photos, tmp_path):
    def load():
        raise UnknownModel("There is no model named 'x'.")

    with pytest.raises(UnknownModel, match="no model named 'x'"):
        list(raydata.run(photos, tmp_path / "out", load=load))


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("in.parquet", b"no table", "cannot be read"), ("photos.zip", None, "do not read zips"),
])
def test_what_workers_cannot_read_is_refused_before_the_work(cluster, photos, tmp_path, name, content, sentence):
    if content is None:
        shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        raydata.run(tmp_path / name, tmp_path / "out", load=Brightness)
    assert not (tmp_path / "out").exists()


def test_table_without_pictures_or_with_equal_names_is_refused(cluster, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "none.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"", b""], "name": ["a.png", "A.jpg"]}),
                                tmp_path / "twice.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array([], pyarrow.binary())}),
                                tmp_path / "empty.parquet")
    for name, sentence in (("none.parquet", "no pictures"), ("twice.parquet", "one output name"),
                           ("empty.parquet", "no rows")):
        with pytest.raises(UsageError, match=sentence):
            raydata.run(tmp_path / name, tmp_path / "out", load=Brightness)
