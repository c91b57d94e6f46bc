"""A GPU that is lent for a call: nothing is loaded in the app itself, and words of errors survive the way back.

The stand-in for the `spaces` package does what ZeroGPU does with a function: arguments are pickled into a
forked process, the answer is pickled back, and of an error only the name of its class returns.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from depth import estimator, zerogpu
from tests.app_server import ROOT, serving
from tests.brightness import picture
from tests.test_video import clip

STAND_IN = '''
import multiprocessing, os, pickle
import torch  # as the package does

def GPU(function, duration):
    def borrowed(*args):
        with open(os.environ["LOANS"], "a") as file:
            file.write(f"{duration}\\n")
        here, there = multiprocessing.Pipe()
        def work():
            try:
                there.send_bytes(pickle.dumps(function(*pickle.loads(sent))))
            except Exception as error:
                there.send_bytes(pickle.dumps(RuntimeError("ZeroGPU worker error: " + type(error).__name__)))
        sent = pickle.dumps(args)
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        answer = pickle.loads(here.recv_bytes())
        process.join()
        if isinstance(answer, RuntimeError):
            raise answer
        return answer
    return borrowed
'''


@pytest.fixture(scope="module")
def lending(tmp_path_factory):
    """Variables of a Space that lends GPUs."""
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "spaces.py").write_text(STAND_IN)
    return {"PYTHONPATH": str(folder), "SPACES_ZERO_GPU": "true", "LOANS": str(folder / "loans"),
            "OMP_NUM_THREADS": "1"}


def test_elsewhere_all_is_plain():
    def function():
        return 1

    assert zerogpu.on_gpu(function, seconds=5) is function
    assert zerogpu.shared("Tiny") is estimator.shared("Tiny")


@pytest.mark.parametrize(("content", "words"), [(None, "(12, 16)"), (b"no picture", "not a picture that can be read")])
def test_picture_goes_to_the_gpu_and_depth_or_a_sentence_comes_back(lending, tmp_path, content, words):
    photo = picture(tmp_path / "photo.png")
    if content:
        photo.write_bytes(content)
    code = f"""
from cache.errors import ImageError
from depth import estimator, zerogpu
try:
    print(zerogpu.shared("Tiny").predict({str(photo)!r}).shape)
except ImageError as error:
    print(error)
print(estimator.loaded())
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | lending, capture_output=True,
                          text=True, timeout=300)
    assert words in told.stdout and told.stdout.endswith("()\n"), told.stdout + told.stderr


def test_page_borrows_for_each_picture_and_frame(lending, tmp_path):
    loans = Path(lending["LOANS"])
    with serving(tmp_path, **lending) as server:
        client = Client(server.url, verbose=False, download_files=tmp_path / "downloads")
        loans.write_text("")
        photo = handle_file(picture(tmp_path / "photo.png"))
        client.predict(image=photo, api_name="/predict")
        client.predict([photo, photo], "Tiny", ["npy"], "gray", api_name="/batch")
        client.predict(handle_file(clip(tmp_path / "in.mp4", 2)), "Tiny", "gray", 0, False, False, api_name="/video")
        assert loans.read_text().split() == ["60"] * (1 + 1 + 2)  # the same photo twice is one
        with pytest.raises(AppError, match=r"setup_models\.py --models DPT_Large"):
            client.predict(image=photo, model="DPT_Large", api_name="/predict")
        assert "Traceback" not in server.log()
