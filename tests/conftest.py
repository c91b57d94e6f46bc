"""What every test gets: an offline world of its own, in a temporary folder.

The variables are set before anything of the product is imported, so that no test can reach a
real Hub, a real home folder or a real account. Tests that need a Hub start a local one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # what failed tests wrote stays
HOME = Path(tempfile.mkdtemp(prefix="depthmap-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)  # leave nothing behind
tempfile.tempdir = str(HOME / "tmp")  # what libraries and killed processes leave goes in the end
Path(tempfile.tempdir).mkdir()

for name in ("SPACE_ID", "SYSTEM", "GRADIO_SSR_MODE", "HF_TOKEN", "HF_ENDPOINT", "DEPTHMAP_ADMIN_TOKEN",
             "DEPTHMAP_FORMATS", "DEPTHMAP_CACHE_MAX_BYTES", "DEPTHMAP_MAX_LOADED", "DEPTHMAP_MAX_LOADED_BYTES",
             "DEPTHMAP_MODEL"):
    os.environ.pop(name, None)
os.environ.update(
    TMPDIR=tempfile.tempdir, TEMP=tempfile.tempdir, TMP=tempfile.tempdir,
    HF_HOME=str(HOME / "hf"), HF_HUB_CACHE=str(HOME / "hf" / "hub"), DEPTHMAP_CACHE=str(HOME / "models"),
    DEPTHMAP_COMPILE="0",  # a test that wants a compiled network says so
    OMP_WAIT_POLICY="passive",  # threads that wait for work leave the cores to other processes' tests
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
    GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(HOME / "gradio"), DO_NOT_TRACK="1",
)
sys.path.insert(0, str(ROOT))

LONGEST = (
    "test_networks", "test_compiled", "test_page_outputs", "test_page_cache", "test_rearranging", "test_quantizing",
    "test_page", "test_tiny", "test_raydata", "test_last_round", "test_page_batch", "test_hub_campaign",
    "test_app_crowd", "test_page_video", "test_app", "test_importing", "test_zerogpu", "test_manager",
    "test_networks_checkpoints", "test_compilable",
)


def pytest_collection_modifyitems(items) -> None:
    """The files that take longest go first, so that processes that share the files end together."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_configure(config) -> None:
    if not hasattr(config, "workerinput"):  # of several processes the one that reports
        config.pluginmanager.register(_Names(config))


class _Names:
    """Tells of each failure when it comes, so that a long run need not end to be understood."""

    def __init__(self, config):
        self._config = config

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and (terminal := self._config.pluginmanager.get_plugin("terminalreporter")):
            terminal.write_line(f"\n{report.nodeid}: failed ({report.when})")
