"""Records are dataclasses whose values are set once."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, field, is_dataclass, replace

import pytest

from cache.record import Record


class Point(Record):
    """A place and its names."""

    x: int
    y: int = 2
    names: list = field(default_factory=list)


class Other(Record):
    x: int
    y: int = 2
    names: list = field(default_factory=list)


def test_a_record_is_a_dataclass():
    assert is_dataclass(Point) and asdict(Point(1, names=["a"])) == {"x": 1, "y": 2, "names": ["a"]}


@pytest.mark.parametrize("name", ["x", "y", "names", "z"])
def test_values_cannot_be_set_again_nor_others_added(name):
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(point, name, 5)
    assert point == Point(1)


def test_values_cannot_be_deleted():
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match="x"):
        del point.x
    assert point.x == 1


def test_records_are_equal_by_class_and_values():
    assert Point(1) == Point(1, 2, []) and Point(1) != Point(2) and Point(1) != Other(1) and Point(1) != 1


def test_equal_records_have_equal_hashes():
    assert len({Point(1, 2, ()), Point(1, names=()), Point(3, names=())}) == 2


def test_a_record_of_something_that_has_no_hash_has_none():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))


def test_a_record_shows_its_values():
    assert repr(Point(1)) == "Point(x=1, y=2, names=[])"


@pytest.mark.parametrize("twin", [replace, copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_equal_and_as_fixed(twin):
    other = twin(Point(1, 3))
    assert other == Point(1, 3)
    with pytest.raises(FrozenInstanceError):
        other.x = 2


def test_what_a_field_says_of_itself_is_heeded():
    class Heeding(Record):
        known: int
        table: dict = field(hash=False)
        note: str = field(default="", compare=False)
        secret: str = field(default="x", repr=False)

    one, same = Heeding(1, {}, "a"), Heeding(1, {}, "b")
    assert one == same and hash(one) == hash(same) and one != Heeding(1, {"a": 1}) != Heeding(1, {}, secret="y")
    assert repr(one) == (f"{Heeding.__qualname__}(known=1, table={{}}, note='a')")


def test_a_wrong_argument_is_named():
    with pytest.raises(TypeError, match="'z'"):
        Point(1, z=3)


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, [], 4), {}), ((1,), {"x": 1})],
                         ids=["none of one without a default", "too many", "one of them twice"])
def test_wrong_values_are_refused(values, named):
    with pytest.raises(TypeError, match="Point"):
        Point(*values, **named)


def test_each_record_gets_a_default_of_its_own():
    assert Point(1).names is not Point(1).names
