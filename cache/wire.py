"""What goes over the wire: request and response shapes of the REST interface, and error codes.

The cache's own records are response types as they are; here stands what only HTTP needs.
Requests are strict: an unknown key, or text where a number belongs, is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from cache import jobs, records

Format = Literal["pt", "h5", "pkl", "safetensors"]
STATUS = {  # error code -> HTTP status; what is missing here is 500
    "usage": 400, "not_confirmed": 400, "bad_request": 400, "login": 401, "refused": 403,
    "unknown_model": 404, "unknown_job": 404, "not_found": 404, "method_not_allowed": 405, "timeout": 408,
    "not_cached": 409, "cancelled": 409, "too_large": 413, "media_type": 415, "bad_image": 422, "invalid_request": 422,
    "bad_weights": 422, "invalid_file": 422, "wrong_checkpoint": 422, "integrity": 422, "too_busy": 429,
    "fetch_failed": 502, "not_available": 503, "busy": 503, "permission": 503, "no_space": 507,
}
CODES = {400: "bad_request", 401: "login", 403: "refused", 404: "not_found", 405: "method_not_allowed", 408: "timeout",
         413: "too_large", 415: "media_type", 422: "invalid_request", 429: "too_busy"}


class ErrorBody(BaseModel):
    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="A sentence for people.")


class ErrorReply(BaseModel):
    error: ErrorBody


def error_reply(code: str, message: str) -> JSONResponse:
    """The JSON of an error with the status that belongs to its code."""
    status = STATUS.get(code, 500)
    headers = {"Retry-After": "5"} if status in (429, 503) else None
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


MODEL = Field(max_length=200, description="A model name or alias from GET /api/models/status.")
OPTIONAL_MODEL = Field(default=None, max_length=200, description="One model; all when left out.")
WAIT = Field(description="True: answer when it is done. False: answer at once with the job.")


class ClearRequest(_Strict):
    confirm: bool = Field(description="Must be true; false is refused.")
    model: str | None = OPTIONAL_MODEL
    dry_run: bool = Field(default=False, description="Only tell what would be removed.")


class OptimizeRequest(_Strict):
    dry_run: bool = Field(default=False, description="Only tell what would be done.")


class VerifyRequest(_Strict):
    model: str | None = OPTIONAL_MODEL


class DownloadRequest(_Strict):
    model: str = MODEL
    formats: list[Format] | None = Field(default=None, min_length=1, description="Left out: the server's formats.")
    wait: bool = Field(False, description=WAIT.description)


class ConvertRequest(_Strict):
    model: str = MODEL
    format: Format
    wait: bool = Field(True, description=WAIT.description)


class ExportRequest(_Strict):
    model: str | None = Field(default=None, max_length=200, description='Left out with "bundle": every cached model.')
    format: Literal["pt", "h5", "pkl", "safetensors", "bundle"] = "safetensors"
    dtype: Literal["fp16", "bf16"] | None = Field(default=None, description="Left out: unchanged.")
    file: str | None = Field(default=None, max_length=100, description="A name inside the export folder.")
    overwrite: bool = False
    wait: bool = Field(True, description=WAIT.description)


class ImportRequest(_Strict):
    file: str = Field(max_length=100, description="A file that lies in the export folder.")
    model: str | None = Field(default=None, max_length=200, description="Left out: recognised by content.")
    wait: bool = Field(True, description=WAIT.description)


class PlanReply(BaseModel):
    """What will be or was done."""

    executed: bool
    ok: bool
    frees: int = Field(description="Bytes.")
    steps: list[records.Step]
    notes: list[str]


class VerifyReply(BaseModel):
    """The hash of every file; `ok` only when all are as they must be."""

    ok: bool
    files: list[records.Verdict]


class EventsReply(BaseModel):
    events: list[jobs.Event]


class JobsReply(BaseModel):
    jobs: list[jobs.Job]


class ExportReply(BaseModel):
    exported: records.Exported
    url: str = Field(description="Where to fetch it, on this server.")


class DepthReply(BaseModel):
    """Relative inverse depth: larger is nearer, no unit."""

    model: str
    height: int
    width: int
    min: float
    max: float
    seconds: dict[str, Any]
    values: list[list[float]] = Field(description="Rows from the top, each from the left.")
