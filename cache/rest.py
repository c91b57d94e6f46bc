"""The REST interface of cache and depth: routes over `Actions`, for any FastAPI or Gradio server.

    app_kwargs={"routes": rest.routes(actions, loopback_bound=True, depth=...), ...}

Reading is open where the page is open; what changes the cache passes `gate.py` first. Long work is
a job: the answer waits for it, or with `"wait": false` names it, to be polled, streamed, cancelled.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from json import dumps
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, Match

from cache import access, apidocs, records, wire
from cache.actions import Actions
from cache.errors import Refused
from cache.gate import GIB, JSON, MIB, Door, Rule, gate
from cache.jobs import CANCELLED, FAILED, Job, TooBusy
from cache.records import to_json
from cache.rest_depth import Estimate, SavePng, depth_route
from cache.turns import Turns
from cache.uploads import UPLOADS, received

CHANGES = Rule(admin=True)
RULES = {
    "/api/depth": Rule(body=25 * MIB, media=(*UPLOADS, "image/*")),
    "/api/models/import": Rule(admin=True, body=8 * GIB, media=(*JSON, *UPLOADS)),
} | {f"/api/models/{path}": CHANGES for path in (
    "cache/clear", "cache/optimize", "cache/verify", "convert", "download", "export", "exports/{file}",
    "jobs/{id}/cancel")}
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": wire.ErrorReply} for code in (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)}
MAX_STREAMS = 32
POLL_SECONDS, HEARTBEAT_SECONDS = 0.1, 15.0


def routes(actions: Actions, *, loopback_bound: bool, shared: bool = False,
           environ: Mapping[str, str] = os.environ, depth: Estimate | None = None,
           save_png16: SavePng | None = None) -> list[BaseRoute]:
    """All routes under /api, to be served before a page's own.

    loopback_bound, shared  where the server can be reached from, see `access.refusal`
    depth(path, model)      gives the depth map of an image file (None for `model`: the default);
                            left out, there is no POST /api/depth
    save_png16(path, values)  writes the 16-bit PNG
    """
    door = Door(environ, loopback_bound, shared)
    api = APIRouter(prefix="/api", route_class=gate(door, RULES), responses=ERRORS)
    _reading(api, actions)
    _changing(api, actions)
    _jobs(api, actions)
    if depth:
        depth_route(api, depth, save_png16, partial(_may_load, actions, door))
    _documentation(api)
    _nothing_else(api)
    return list(api.routes)


def _may_load(actions: Actions, door: Door, request: Request, name: str | None) -> None:
    """Loading a model that is not here would download it, and that is a change of the cache."""
    if not name or actions.is_here(name):
        return
    reason = access.refusal(request.headers, door.environ, loopback_bound=door.loopback_bound, shared=door.shared)
    if reason:
        raise Refused("This model is not cached, and downloading it is not allowed from here.", got=reason,
                      next_step="Choose a model that is cached, or send the admin token.")


def _reading(api: APIRouter, actions: Actions) -> None:
    @api.get("/models/status", tags=["cache"], response_model=records.Status)
    def status():
        """Every model of the table: cached or not, formats, sizes, last use."""
        return actions.manager.status()

    @api.get("/models/cache/info", tags=["cache"], response_model=records.Info)
    def info(detailed: bool = False):
        """Totals, health, and with `detailed` every file."""
        return actions.manager.info(detailed)

    @api.get("/models/cache/health", tags=["cache"], response_model=records.Health)
    def health():
        """Everything that is not as it should be, by a cheap look."""
        return actions.manager.health()

    @api.get("/models/events", tags=["jobs"], response_model=wire.EventsReply)
    def events(since: int = 0):
        """The log that the page shows; `since` is the last number already seen."""
        return {"events": actions.jobs.events(since)}


def _changing(api: APIRouter, actions: Actions) -> None:
    uploads = Turns(running=2, waiting=4, each=2)
    finish = partial(_answer, actions)

    @api.post("/models/cache/clear", tags=["cache"], response_model=wire.PlanReply)
    def clear(body: wire.ClearRequest):
        """Remove one model, or all, from the cache."""
        if not body.confirm:
            return wire.error_reply("not_confirmed", 'Send {"confirm": true}. Nothing was removed.')
        return to_json(actions.clear(body.model, dry_run=body.dry_run))

    @api.post("/models/cache/optimize", tags=["cache"], response_model=wire.PlanReply)
    def optimize(body: wire.OptimizeRequest | None = None):
        """Remove leftovers and duplicates, repair what is broken, keep the quota."""
        return to_json(actions.optimize(dry_run=bool(body and body.dry_run)))

    @api.post("/models/cache/verify", tags=["cache"], response_model=wire.VerifyReply)
    async def verify(body: wire.VerifyRequest | None = None):
        """Hash every cached file, offline. The status is 200 even where a file is bad: see `ok`."""
        names = [body.model] if body and body.model else None
        return await finish(lambda: actions.verify(names), True, lambda verdicts: {
            "ok": all(verdict.ok for verdict in verdicts), "files": to_json(verdicts)})

    @api.post("/models/download", tags=["cache"], response_model=records.ModelEntry, responses=_JOB, status_code=202)
    async def download(body: wire.DownloadRequest):
        """Fetch, verify and convert; a job, unless `wait` is true."""
        return await finish(lambda: actions.download(body.model, body.formats), body.wait)

    @api.post("/models/convert", tags=["cache"], response_model=records.ModelEntry, responses=_JOB)
    async def convert(body: wire.ConvertRequest):
        """Make one more format of a cached model."""
        return await finish(lambda: actions.convert(body.model, body.format), body.wait)

    @api.post("/models/export", tags=["files"], response_model=wire.ExportReply, responses=_JOB)
    async def export(body: wire.ExportRequest):
        """Write a self-contained file into the server's export folder."""
        return await finish(
            lambda: actions.export(body.model, body.format, body.dtype, file=body.file, overwrite=body.overwrite),
            body.wait, lambda made: {"exported": to_json(made), "url": f"/api/models/exports/{made.path.name}"})

    @api.get("/models/exports/{file}", tags=["files"], response_class=FileResponse)
    def exported(file: str):
        """Fetch a file of the export folder."""
        path = actions.export_path(file)
        if not path.is_file():
            raise HTTPException(404, "There is no such file in the export folder.")
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    @api.post("/models/import", tags=["files"], response_model=records.Imported,
              responses=_JOB, openapi_extra=_import_body())
    async def import_(request: Request, model: str | None = None):
        """Take in a weight file or bundle: uploaded, or by its name in the export folder."""
        if request.headers.get("content-type", "").startswith(JSON[0]):
            body = _read(wire.ImportRequest, await request.body())
            path = actions.export_path(body.file)
            if not path.is_file():
                raise HTTPException(404, "There is no such file in the export folder.")
            return await finish(lambda: actions.import_(path, body.model), body.wait)
        async with uploads.turn(_visitor(request)):
            folder = await run_in_threadpool(lambda: actions.exports)
            async with received(request, folder, field="file", seconds=3600) as (path, fields):
                return await finish(lambda: actions.import_(path, fields.get("model") or model), True)


def _jobs(api: APIRouter, actions: Actions) -> None:
    streams = [0]

    @api.get("/models/jobs", tags=["jobs"], response_model=wire.JobsReply)
    def jobs():
        """The jobs that are remembered, oldest first."""
        return {"jobs": [_plain(job) for job in actions.jobs.list()]}

    @api.get("/models/jobs/{id}", tags=["jobs"], response_model=Job)
    def job(id: str):
        """One job as it is now."""
        return _plain(actions.jobs.get(id))

    @api.get("/models/jobs/{id}/stream", tags=["jobs"], response_class=StreamingResponse,
             responses={200: {"model": Job, "content": {"application/x-ndjson": {}, "text/event-stream": {}}}})
    async def stream(id: str, request: Request):
        """Each change of a job until its end: a JSON line each, or events where Accept asks for them."""
        actions.jobs.get(id)
        if streams[0] >= MAX_STREAMS:
            raise TooBusy("Too many streams are open.", next_step=f"Poll /api/models/jobs/{id} instead.")
        events = "text/event-stream" in request.headers.get("accept", "")
        return StreamingResponse(_changes(actions, id, events, streams), headers={"Cache-Control": "no-store"},
                                 media_type="text/event-stream" if events else "application/x-ndjson")

    @api.post("/models/jobs/{id}/cancel", tags=["jobs"], response_model=Job)
    def cancel(id: str):
        """Ask a job to stop. What was downloaded is kept and resumed later; an export or import that
        has begun runs to its end."""
        return _plain(actions.jobs.cancel(id))


async def _answer(actions: Actions, start: Callable[[], Job], wait: bool,
                  shape: Callable[[Any], Any] = to_json) -> Response:
    """Start a job; answer with its result, its error, or (not waiting) the job itself."""
    job = await run_in_threadpool(start)
    if not wait:
        return JSONResponse(to_json(job), 202, {"Location": f"/api/models/jobs/{job.id}"})
    while (job := actions.jobs.get(job.id)).is_active():
        await asyncio.sleep(POLL_SECONDS / 2)
    if job.state == FAILED:
        return wire.error_reply(job.error.code, job.error.message)
    if job.state == CANCELLED:
        return wire.error_reply("cancelled", "The job was cancelled.")
    return JSONResponse(shape(job.result))


async def _changes(actions: Actions, id: str, events: bool, streams: list[int]) -> AsyncIterator[str]:
    streams[0] += 1
    try:
        seen, quiet = None, 0.0
        while True:
            job = actions.jobs.get(id)
            if job.version != seen or quiet >= HEARTBEAT_SECONDS:
                seen, quiet = job.version, 0.0
                line = dumps(to_json(job))
                yield f"event: {job.state}\ndata: {line}\n\n" if events else line + "\n"
            if not job.is_active():
                return
            await asyncio.sleep(POLL_SECONDS)
            quiet += POLL_SECONDS
    finally:
        streams[0] -= 1


def _documentation(api: APIRouter) -> None:
    @api.get("/openapi.json", include_in_schema=False)
    def openapi():
        return JSONResponse(get_openapi(title="Depthmap", version="1", routes=api.routes,
                                        description="Depth maps and the model cache behind them."))

    @api.get("/docs", include_in_schema=False)
    def docs():
        page = apidocs.page(get_openapi(title="Depthmap", version="1", routes=api.routes))
        return HTMLResponse(page, headers={"Content-Security-Policy": apidocs.POLICY})


def _nothing_else(api: APIRouter) -> None:
    """Under /api a wrong path or method answers in JSON too, instead of with the page."""
    known = list(api.routes)

    @api.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def nothing(request: Request, path: str):
        if any(route.matches(request.scope)[0] is Match.PARTIAL for route in known):
            raise HTTPException(405, f"{request.method} is not offered here.")
        raise HTTPException(404, "There is no such address. See /api/docs.")


def _plain(job: Job) -> Job:
    return replace(job, result=to_json(job.result))


def _read(shape: type[wire.ImportRequest], body: bytes) -> wire.ImportRequest:
    """Validate a JSON body in a route that also takes uploads."""
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError

    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None


def _visitor(request: Request) -> str:
    return request.client.host if request.client else ""


def _import_body() -> dict[str, Any]:
    upload = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"},
                                               "model": {"type": "string"}}, "required": ["file"]}
    return {"requestBody": {"required": True, "content": {
        "multipart/form-data": {"schema": upload}, "application/octet-stream": {"schema": {"type": "string",
                                                                                           "format": "binary"}},
        "application/json": {"schema": wire.ImportRequest.model_json_schema()}}}}


_JOB: dict[int | str, dict[str, Any]] = {202: {"model": Job, "description": 'With "wait": false.'}}
