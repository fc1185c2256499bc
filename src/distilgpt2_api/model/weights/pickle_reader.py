"""Reads the pickles of PyTorch checkpoints: tensors and plain values. Nothing in them is imported, called or executed.

Python's own reader calls what a pickle names. This one interprets the opcodes that `torch.save` writes. A global is
only a name here. Calling an allowed name builds a value of ours (`pickled_tensors.py`); all other names are refused.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distilgpt2_api.core.errors import ModelFormatError, UnsupportedModelError
from distilgpt2_api.model.weights.pickled_tensors import (
    MalformedPickleError,
    RefusedPickleError,
    Storage,
    call,
    parse_global,
    parse_storage,
)

MAX_OPCODES = 120_000
"""The largest GPT-2 has 30 000, or 80 000 with the state of its optimizer. Bounds time and memory: an opcode takes some
microseconds, and a hundred bytes.
"""


def read_pickle(path: Path, content: io.BytesIO) -> tuple[Any, Mapping[str, Storage]]:
    """Reads one pickle from `content`, up to its end. Returns its value and all its storages by key. Dictionaries and
    lists may contain themselves.

    Raises ModelFormatError or UnsupportedModelError, in one line that names `path`.
    """
    interpreter = _Interpreter()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            interpreter.run(opcode.name, argument)
        return interpreter.result(), interpreter.storages
    except RefusedPickleError as error:
        raise UnsupportedModelError(f"{path}: {error}; only tensors and plain values are read") from None
    except MalformedPickleError as error:
        raise ModelFormatError(f"{path}: not a checkpoint of PyTorch: {error}") from None
    except (ValueError, LookupError, AssertionError, OverflowError):  # what pickletools raises; an empty stack or memo
        raise ModelFormatError(f"{path}: not a checkpoint of PyTorch: the pickle is malformed") from None


class _Interpreter:
    """A stack machine, as Python's. Mutable. Methods named like opcodes take an opcode's argument."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        """The stacks below each mark."""
        self._memo: dict[int, Any] = {}
        self._num_opcodes = 0
        self.storages: dict[str, Storage] = {}

    def run(self, name: str, argument: Any) -> None:
        self._num_opcodes += 1
        if self._num_opcodes > MAX_OPCODES:
            raise MalformedPickleError(f"the pickle has more than {MAX_OPCODES} opcodes")
        if name in CONSTANTS:
            self.push(CONSTANTS[name])
        elif name in OPERATIONS:
            OPERATIONS[name](self, argument)
        else:
            raise RefusedPickleError(f"the pickle has the opcode {name}")

    def result(self) -> Any:
        if len(self._stack) != 1 or self._marked:
            raise MalformedPickleError("the pickle leaves no single value")
        return self._stack[0]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_dict(self, _: None) -> None:
        self.push({})

    def push_list(self, _: None) -> None:
        self.push([])

    def skip(self, _: Any) -> None:
        """Protocol, frames and the end need nothing."""

    def pop(self, _: None) -> None:
        self._stack.pop()

    def mark(self, _: None) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def tuple_from_mark(self, _: None) -> None:
        self.push(tuple(self._pop_mark()))

    def tuple1(self, _: None) -> None:
        self.push(tuple(self._pop_last(1)))

    def tuple2(self, _: None) -> None:
        self.push(tuple(self._pop_last(2)))

    def tuple3(self, _: None) -> None:
        self.push(tuple(self._pop_last(3)))

    def append(self, _: None) -> None:
        self._append(self._pop_last(1))

    def appends(self, _: None) -> None:
        self._append(self._pop_mark())

    def setitem(self, _: None) -> None:
        self._set(self._pop_last(2))

    def setitems(self, _: None) -> None:
        self._set(self._pop_mark())

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def push_global(self, names: str) -> None:
        """Reading lines takes as long as ten other opcodes. `torch.save` writes each name once."""
        self._num_opcodes += 9
        self.push(parse_global(names.replace(" ", ".", 1)))

    def stack_global(self, _: None) -> None:
        names = self._pop_last(2)
        if not all(isinstance(name, str) for name in names):
            raise MalformedPickleError("a name is no text")
        self.push(parse_global(".".join(names)))

    def binpersid(self, _: None) -> None:
        storage = parse_storage(self._stack.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise MalformedPickleError("two storages have the same key")
        self.push(storage)

    def reduce(self, _: None) -> None:
        called, arguments = self._pop_last(2)
        self.push(call(called, arguments))

    def build(self, _: None) -> None:
        """Sets attributes: state dicts have module versions as one, which are not needed."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise MalformedPickleError("only a dictionary can have attributes")

    def _pop_last(self, num_items: int) -> list[Any]:
        values = self._stack[-num_items:]
        if len(values) < num_items:
            raise MalformedPickleError("the pickle takes more values than it has")
        del self._stack[-num_items:]
        return values

    def _pop_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._marked.pop()
        return values

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise MalformedPickleError("a value that is no list is appended to")
        target += values

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise MalformedPickleError("a value that is no dictionary gets an item")
        if not all(isinstance(key, str | int) for key in values[::2]):
            raise RefusedPickleError("a dictionary in the pickle has a key that is no text or integer")
        target.update(zip(values[::2], values[1::2], strict=True))


CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
"""Opcodes without an argument, and their values, which can't be changed."""
OPERATIONS: Mapping[str, Callable[[_Interpreter, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _Interpreter.skip),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"), _Interpreter.push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _Interpreter.push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _Interpreter.push),  # texts of Python 2
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Interpreter.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Interpreter.get),
    "EMPTY_DICT": _Interpreter.push_dict,
    "EMPTY_LIST": _Interpreter.push_list,
    "POP": _Interpreter.pop,
    "MARK": _Interpreter.mark,
    "TUPLE": _Interpreter.tuple_from_mark,
    "TUPLE1": _Interpreter.tuple1,
    "TUPLE2": _Interpreter.tuple2,
    "TUPLE3": _Interpreter.tuple3,
    "APPEND": _Interpreter.append,
    "APPENDS": _Interpreter.appends,
    "SETITEM": _Interpreter.setitem,
    "SETITEMS": _Interpreter.setitems,
    "MEMOIZE": _Interpreter.memoize,
    "GLOBAL": _Interpreter.push_global,
    "STACK_GLOBAL": _Interpreter.stack_global,
    "BINPERSID": _Interpreter.binpersid,
    "REDUCE": _Interpreter.reduce,
    "BUILD": _Interpreter.build,
}
"""The opcodes of protocols 2 to 5 that plain values and tensors need."""
