"""What all records have in common."""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, fields


class Record:
    """A dataclass whose values are set once.

    `dataclass(frozen=True)` writes and compiles six methods of every class at each start, for half a millisecond. Here
    they are written once, and heed the defaults and what `field(compare=…, hash=…, repr=…)` says.
    """

    def __init_subclass__(cls) -> None:
        dataclass(init=False, eq=False, repr=False)(cls)

    def __init__(self, *values: object, **named: object) -> None:
        names = [one.name for one in fields(self)]
        given = dict(zip(names, values, strict=False)) | named
        if strange := named.keys() - names:
            raise TypeError(f"{type(self).__qualname__} has no {sorted(strange)}")
        if len(given) != len(values) + len(named):
            raise TypeError(f"{type(self).__qualname__} was given too many values, or one of them twice")
        for one in fields(self):
            if one.name not in given:
                given[one.name] = one.default if one.default_factory is MISSING else one.default_factory()
                if given[one.name] is MISSING:
                    raise TypeError(f"{type(self).__qualname__} was not given {one.name!r}")
        self.__dict__.update((name, given[name]) for name in names)

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
