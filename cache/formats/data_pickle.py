"""A pickle reader that can execute nothing: it knows data, and refuses everything else.

Python's own unpickler calls what the stream names; an allow-list of names does not help, because
harmless names can be called with harmful arguments, and memo or length tricks take gigabytes. This
reader has no calls: a "global" is only a token, and the subclass says which tokens make which inert
record from which arguments. Nothing recurses, every length is checked against the bytes that are
there, work is bounded by MAX_OPS, and no untrusted container is ever printed, compared or hashed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from cache.formats.layout import refuse

MAX_OPS = 400_000
MAX_MEMO = 1 << 18
MAX_LINE = 256  # characters of a module or class name


class Token:
    """A name in the stream that stands for something the subclass knows."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


_MARK = Token("mark")


class DataPickle:
    """Reads one pickle at a time from a buffer; subclasses give `names`, `call`, `build`, `persistent`."""

    names: frozenset[str] = frozenset()

    def __init__(self, view: memoryview, buffers: Iterable[memoryview] = ()):
        self.view = view
        self.at = 0
        self.ops = 0
        self.buffers = iter(buffers)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    # -- what a subclass decides --

    def call(self, name: str, args: tuple) -> Any:
        raise refuse(f"a call of {name[:80]!r}")

    def build(self, target: Any, state: Any) -> Any:
        raise refuse("an object with state")

    def persistent(self, key: Any) -> Any:
        raise refuse("a persistent reference")

    # -- the machine --

    def read(self) -> Any:
        """The next object; `at` then points behind it."""
        self.stack, self.memo = [], {}
        while True:
            self.ops += 1
            if self.ops > MAX_OPS:
                raise refuse("a pickle with too many operations")
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                if len(self.stack) != 1:
                    raise refuse("a pickle that ends in the middle")
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise refuse(f"a pickle with the operation {code:#04x}, which data does not need")
            step(self)

    def take(self, count: int) -> memoryview:
        end = self.at + count
        if count < 0 or end > len(self.view):
            raise refuse("a pickle that is cut off or lies about a length")
        piece, self.at = self.view[self.at:end], end
        return piece

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, count: int) -> str:
        try:
            return str(self.take(count), "utf-8")
        except UnicodeDecodeError:
            raise refuse("a pickle with broken text") from None

    def line(self) -> str:
        end = bytes(self.view[self.at:self.at + MAX_LINE]).find(b"\n")
        if end < 0:
            raise refuse("a pickle with an endless line")
        text = self.text(end)
        self.at += 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise refuse("a pickle that takes more than it gave")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise refuse("a pickle that fills something else than a container")
        return self.stack[-1]

    def since_mark(self) -> list:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1:]
                del self.stack[index:]
                return items
        raise refuse("a pickle without its mark")

    def remember(self, key: int) -> None:
        if not 0 <= key <= MAX_MEMO:
            raise refuse("a pickle with a huge memo")
        self.memo[key] = self.pop()
        self.push(self.memo[key])

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise refuse("a pickle that recalls what it never said")
        self.push(self.memo[key])

    def name(self, module: Any, name: Any) -> None:
        short = type(module) is str is type(name) and len(module) + len(name) <= MAX_LINE
        full = f"{module} {name}" if short else ""
        if full not in self.names:
            raise refuse(f"a pickle that names {full[:120]!r}")
        self.push(Token(full))

    def reduce(self) -> None:
        args, target = self.pop(), self.pop()
        if type(target) is not Token or type(args) is not tuple:
            raise refuse("a pickle that calls what is no name")
        self.push(self.call(target.name, args))

    def set_items(self, items: list) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise refuse("a pickle with half an entry")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Numbers stay small so that nobody can choose them to collide in the dictionary.
            plain = type(key) is str or (type(key) is int and 0 <= key < 1 << 31)
            if not plain or key in target:
                raise refuse("a pickle with a strange or double key")
            target[key] = value

    def set_state(self) -> None:
        state, target = self.pop(), self.pop()
        self.push(self.build(target, state))


def _protocol(reader: DataPickle) -> None:
    if not 2 <= reader.take(1)[0] <= 5:
        raise refuse("a pickle of an unknown protocol")


def _frame(reader: DataPickle) -> None:
    if reader.number("<Q") > len(reader.view) - reader.at:
        raise refuse("a pickle that lies about a length")


def _long(reader: DataPickle) -> None:
    size = reader.take(1)[0]
    if size > 9:
        raise refuse("a pickle with a huge number")
    reader.push(int.from_bytes(reader.take(size), "little", signed=True))


def _append(reader: DataPickle, items: list) -> None:
    reader.top(list).extend(items)


def _tuple(count: int):
    def make(reader: DataPickle) -> None:
        items = [reader.pop() for _ in range(count)]
        reader.push(tuple(reversed(items)))
    return make


def _append_one(reader: DataPickle) -> None:
    value = reader.pop()
    _append(reader, [value])


def _set_one(reader: DataPickle) -> None:
    value, key = reader.pop(), reader.pop()
    reader.set_items([key, value])


def _stack_global(reader: DataPickle) -> None:
    name, module = reader.pop(), reader.pop()
    reader.name(module, name)


def _next_buffer(reader: DataPickle) -> None:
    piece = next(reader.buffers, None)
    if piece is None:
        raise refuse("a pickle whose buffers are elsewhere")
    reader.push(piece)


def _integer(layout: str):
    return lambda reader: reader.push(reader.number(layout))


def _counted(layout: str, method: str):
    return lambda reader: reader.push(getattr(reader, method)(reader.number(layout)))


_STEPS = {
    0x80: _protocol, 0x95: _frame,
    0x28: lambda r: r.push(_MARK), 0x4E: lambda r: r.push(None),
    0x88: lambda r: r.push(True), 0x89: lambda r: r.push(False),
    0x4A: _integer("<i"), 0x4B: _integer("<B"), 0x4D: _integer("<H"), 0x8A: _long,
    0x47: _integer(">d"),
    0x58: _counted("<I", "text"), 0x8C: _counted("<B", "text"), 0x8D: _counted("<Q", "text"),
    0x42: _counted("<I", "take"), 0x43: _counted("<B", "take"), 0x8E: _counted("<Q", "take"),
    0x96: _counted("<Q", "take"),
    0x7D: lambda r: r.push({}), 0x5D: lambda r: r.push([]), 0x29: lambda r: r.push(()),
    0x74: lambda r: r.push(tuple(r.since_mark())),
    0x85: _tuple(1), 0x86: _tuple(2), 0x87: _tuple(3),
    0x61: _append_one, 0x65: lambda r: _append(r, r.since_mark()),
    0x73: _set_one, 0x75: lambda r: r.set_items(r.since_mark()),
    0x68: lambda r: r.recall(r.number("<B")), 0x6A: lambda r: r.recall(r.number("<I")),
    0x71: lambda r: r.remember(r.number("<B")), 0x72: lambda r: r.remember(r.number("<I")),
    0x94: lambda r: r.remember(len(r.memo)),
    0x63: lambda r: r.name(r.line(), r.line()), 0x93: _stack_global,
    0x52: lambda r: r.reduce(), 0x62: lambda r: r.set_state(),
    0x51: lambda r: r.push(r.persistent(r.pop())),
    0x97: _next_buffer, 0x98: lambda r: None,
}
