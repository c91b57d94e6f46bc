"""POST /api/depth: an image in, its depth out as 16-bit PNG, npy or JSON."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from cache.errors import UsageError
from cache.records import to_json
from cache.turns import Turns
from cache.uploads import received
from cache.wire import DepthReply

Format = Literal["png", "npy", "json"]
Estimate = Callable[[Path, "str | None"], Any]  # returns .values float32 H×W, .model, .seconds
SavePng = Callable[[Path, np.ndarray], Any]
MAX_JSON_PIXELS = 1 << 20
BODY = {"requestBody": {"required": True, "content": {
    "multipart/form-data": {"schema": {"type": "object", "required": ["image"], "properties": {
        "image": {"type": "string", "format": "binary"}, "model": {"type": "string"},
        "format": {"type": "string", "enum": list(get_args(Format))}}}},
    "image/*": {"schema": {"type": "string", "format": "binary"}}}}}
ANSWERS = {200: {"model": DepthReply, "description": "The depth map; its facts stand in X-Depth-* headers too.",
                 "content": {"image/png": {}, "application/x-npy": {}}}}


def depth_route(api: APIRouter, estimate: Estimate, save_png16: SavePng | None,
                may_load: Callable[[Request, str | None], None]) -> None:
    """Add the route. A few run at once, visitors take turns, and the line is bounded.

    may_load(request, model) raises Refused for a model that this visitor must not cause to be fetched.
    """
    turns = Turns()

    @api.post("/depth", tags=["depth"], responses=ANSWERS, response_class=Response, openapi_extra=BODY)
    async def depth(request: Request, model: str | None = None, format: Format = "png"):
        """Relative inverse depth of one image, in its own size: larger is nearer, no unit."""
        async with received(request, None, field="image", seconds=60) as (path, fields):
            name, kind = fields.get("model") or model, fields.get("format") or format
            if kind not in get_args(Format) or (kind == "png" and save_png16 is None):
                raise UsageError("Unknown output format.", got=repr(kind[:40]), expected="png, npy or json")
            await run_in_threadpool(may_load, request, name)
            async with turns.turn(request.client.host if request.client else ""):
                return await run_in_threadpool(lambda: _encoded(estimate(path, name), kind, path, save_png16))


def _encoded(depth: Any, kind: str, path: Path, save_png16: SavePng | None) -> Response:
    values = np.asarray(depth.values, np.float32)
    facts = {"model": str(depth.model), "height": values.shape[0], "width": values.shape[1],
             "min": float(values.min()), "max": float(values.max())}
    headers = {f"X-Depth-{name.title()}": str(value) for name, value in facts.items()}
    if kind == "json":
        if values.size > MAX_JSON_PIXELS:
            raise UsageError("The depth map is too large for JSON.", got=f"{values.size} pixels",
                             expected=f"at most {MAX_JSON_PIXELS}", next_step="Ask for npy or png.")
        return JSONResponse(facts | {"seconds": to_json(depth.seconds), "values": values.tolist()}, headers=headers)
    if kind == "npy":
        file = io.BytesIO()
        np.save(file, values)
        return Response(file.getvalue(), media_type="application/x-npy", headers=headers)
    png = path.with_name("depth.png")
    save_png16(png, values)
    return Response(png.read_bytes(), media_type="image/png", headers=headers)
