"""The app that most people would write: import everything, load the model, show the page. A peer of `app.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import gradio as gr
import numpy as np
import torch

from benchmarks.worker import load_hub_ready
from depth import images
from depth.models import find

NETWORK, MODEL = load_hub_ready(Path(sys.argv[1]), sys.argv[2]), find(sys.argv[2])


def depth(photo: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        output = NETWORK(torch.as_tensor(images.prepare(images.open_rgb(photo), MODEL)))[0].numpy()
    return (output - output.min()) / max(float(np.ptp(output)), 1e-6)


gr.Interface(depth, gr.Image(), gr.Image(), analytics_enabled=False).launch()
