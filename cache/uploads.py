"""One uploaded file, raw or as a multipart field, on disk for as long as it is needed.

Sizes are bounded by the gate; here time is, so that a slow sender cannot hold a place for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from cache.actions import NAME
from cache.errors import NoSpace

PREFIX, KEEP_SECONDS = ".upload-", 24 * 3600
UPLOADS = ("multipart/form-data", "application/octet-stream")


@asynccontextmanager
async def received(request: Request, folder: Path | None, *, field: str,
                   seconds: float) -> AsyncIterator[tuple[Path, dict[str, str]]]:
    """The uploaded file's path in a folder of its own (inside `folder`, None: the system's for
    temporaries), and the text fields beside it. Its own name is kept where it is harmless."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        yield await asyncio.wait_for(_save(request, own, field), seconds)
    except (asyncio.TimeoutError, OSError) as error:
        raise _translated(error, own) from error
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed server left."""
    for left in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another request sweeps too
            if time.time() - left.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(left)


async def _save(request: Request, folder: Path, field: str) -> tuple[Path, dict[str, str]]:
    if not request.headers.get("content-type", "").startswith("multipart/"):
        path = folder / "upload"
        with path.open("wb") as file:
            async for chunk in request.stream():
                await run_in_threadpool(file.write, chunk)
        return path, {}
    async with request.form(max_files=1, max_fields=8, max_part_size=4096) as form:
        upload = form.get(field)
        if not isinstance(upload, UploadFile):
            raise HTTPException(400, f"Send the file as the field {field!r}.")
        path = folder / (upload.filename if NAME.fullmatch(upload.filename or "") else "upload")
        await run_in_threadpool(_copy, upload, path)
        return path, {name: value for name, value in form.items() if isinstance(value, str)}


def _copy(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1 << 20)


def _translated(error: Exception, folder: Path) -> Exception:
    if isinstance(error, asyncio.TimeoutError):
        return HTTPException(408, "The upload took too long.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("There is no room for the upload.", where=folder.parent, next_step="Free some disk space.")
    return error
