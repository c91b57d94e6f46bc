"""Every error a user can meet, in one tree.

    DepthmapError                 base: what, where, expected, got, next step
    ├── UnknownModel              a name that is not in the model table
    ├── ImageError                a picture that cannot be read or is out of bounds
    ├── WeightsError              a weight file that cannot be used
    │   ├── InvalidModelFile      malformed, hostile, or not the format it claims
    │   ├── WrongCheckpoint       well-formed, but not this model's tensors
    │   └── IntegrityError        bytes differ from the digest they should have
    ├── FetchError                a download that failed; nothing is lost
    │   ├── NotAvailable          offline, or no source has the file
    │   └── Cancelled             stopped on request
    ├── CacheError                the own cache cannot do what was asked
    │   ├── NoSpace               not enough room; says how much is missing
    │   ├── CacheBusy             somebody else holds the lock; names the holder
    │   └── CachePermission       folder is read-only or belongs to somebody else
    ├── UsageError                a bad argument, format or dtype name
    └── Refused                   not allowed from here (see `cache/access.py`)

`code` is a stable word for programs (REST, JSON output); the message is for people.
"""

from __future__ import annotations


class DepthmapError(Exception):
    """One sentence of what happened, then what helps.

    >>> str(DepthmapError("Cannot read the image.", where="a.png", expected="a picture",
    ...                   got="0 bytes", next_step="Choose another file."))
    'Cannot read the image. In a.png: expected a picture, got 0 bytes. Choose another file.'
    """

    code = "error"

    def __init__(self, what: str, *, where: object = None, expected: object = None,
                 got: object = None, next_step: str | None = None):
        self.what, self.where, self.expected, self.got = what, where, expected, got
        self.next_step = next_step
        super().__init__(what)

    def __str__(self) -> str:
        facts = [f"{word} {value}" for word, value in
                 (("expected", self.expected), ("got", self.got)) if value is not None]
        place = f"In {self.where}" if self.where is not None else ""
        middle = ": ".join(part for part in (place, ", ".join(facts)) if part)
        middle = middle[:1].upper() + middle[1:] + "." if middle else ""
        return " ".join(part for part in (self.what, middle, self.next_step) if part)


class UnknownModel(DepthmapError):
    code = "unknown_model"


class ImageError(DepthmapError):
    code = "bad_image"


class WeightsError(DepthmapError):
    code = "bad_weights"


class InvalidModelFile(WeightsError):
    code = "invalid_file"


class WrongCheckpoint(WeightsError):
    code = "wrong_checkpoint"


class IntegrityError(WeightsError):
    code = "integrity"


class FetchError(DepthmapError):
    code = "fetch_failed"


class NotAvailable(FetchError):
    code = "not_available"


class Cancelled(FetchError):
    code = "cancelled"


class CacheError(DepthmapError):
    code = "cache"


class NoSpace(CacheError):
    code = "no_space"


class CacheBusy(CacheError):
    code = "busy"


class CachePermission(CacheError):
    code = "permission"


class UsageError(DepthmapError):
    code = "usage"


class Refused(DepthmapError):
    code = "refused"
