"""What all records have in common."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields


class Record:
    """A dataclass whose values are set once.

    `dataclass(frozen=True)` writes and compiles six methods of every class at each start, for half a millisecond. Here
    five of them are written once, and heed what `field(compare=…, hash=…, repr=…)` says.
    """

    def __init_subclass__(cls) -> None:
        dataclass(eq=False, repr=False)(cls)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ or name not in self.__dataclass_fields__:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, one.name) == getattr(other, one.name) for one in fields(self) if one.compare)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, one.name) for one in fields(self)
                          if (one.compare if one.hash is None else one.hash)))

    def __repr__(self) -> str:
        values = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"{type(self).__qualname__}({values})"
