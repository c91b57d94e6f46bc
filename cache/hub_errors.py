"""Errors of the Hub client and of its HTTP library in our words."""

from __future__ import annotations

from typing import Any

from cache.errors import DepthmapError, FetchError, NotAvailable
from cache.remote import RemoteFile


class client_errors:
    """The client's and its HTTP library's errors in our words; the library differs by version."""

    def __init__(self, file: RemoteFile):
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from cache.transfer import RETRY, Transient, Unreachable

        if error is None or isinstance(error, (DepthmapError, Transient)) or not isinstance(error, Exception):
            return
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in RETRY:
            raise Transient(f"the Hub answered {status}") from error
        if status is not None and status >= 400:
            reason = {401: "no such repository, or a token is needed (HF_TOKEN)", 403: "access is not granted",
                      404: "no such file or revision"}.get(status, type(error).__name__)
            raise NotAvailable("The Hub does not give the file.", where=self.file.where,
                               got=f"HTTP {status}: {reason}") from error
        if type(error).__name__ in ("ConnectError", "ConnectTimeout", "ConnectionError"):
            raise Unreachable(f"{type(error).__name__}: {error}"[:200]) from error
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests"):
            raise Transient(f"{type(error).__name__}: {error}"[:200]) from error
        if type(error).__module__.startswith("huggingface_hub") or isinstance(error, ValueError):
            raise FetchError("The Hub client refused.", where=self.file.where,
                             got=f"{type(error).__name__}: {str(error)[:200]}") from error
