"""Interprets a pickle's opcodes by a small machine that can make tensors and plain values, and nothing else.

- Tensors, numbers, strings, lists, tuples, dicts and sets become themselves.
- Dict classes (`OrderedDict`, `defaultdict`, `addict.Dict`, mmcv's `ConfigDict`) become dicts, numpy's numbers and
  small arrays become numbers and lists, and a parameter becomes its tensor.
- Any other class or function, and whatever would be made with it, becomes a `SetAside` that knows its name.

No name in a pickle is ever imported and nothing in it is ever called. What a tensor says of itself is held against the
numbers that are there, and what is copied is counted, before memory is spent on it.
"""
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

MAX_OPCODES = 1_000_000  # of the pickles in a file; B5 with its optimizer's state and an average has about 150,000
MAX_ARRAY_BYTES = 1 << 20  # of a numpy array that becomes a list
MAX_DIMENSIONS = 64  # of a tensor; torch's own limit
DTYPES = {
    'FloatStorage': torch.float32, 'DoubleStorage': torch.float64, 'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16, 'LongStorage': torch.int64, 'IntStorage': torch.int32,
    'ShortStorage': torch.int16, 'CharStorage': torch.int8, 'ByteStorage': torch.uint8, 'BoolStorage': torch.bool,
}
BYTES = {dtype: torch.empty(0, dtype=dtype).element_size() for dtype in DTYPES.values()}  # of one value

_PLAIN = (str, bytes, int, float, bool, type(None))
_DICTS = {'collections.OrderedDict', 'collections.defaultdict', 'collections.Counter', 'builtins.dict',
          '__builtin__.dict', 'addict.Dict', 'addict.addict.Dict', 'mmcv.utils.config.ConfigDict',
          'mmengine.config.config.ConfigDict', 'modelscope.utils.config.ConfigDict'}
_PUSHED = {  # opcodes that push the value pickletools has decoded for them
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'SHORT_BINBYTES', 'BINBYTES',
    'BINBYTES8', 'BYTEARRAY8'}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_EMPTY = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': set}
_IGNORED = {'PROTO', 'FRAME', 'READONLY_BUFFER'}
_MARK = object()


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable or does not fit; the message says which and what to do."""


class SetAside:
    """Stands for a class or function named in a file, or for what would have been made with it; does nothing.

    Attributes:
        name: `module.name` as the file has it.
    """

    __slots__ = ('name',)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f'<{self.name}, set aside>'


class _Known(SetAside):
    """A name in the file that is known: `make` takes the interpreter and the arguments that come with it."""

    __slots__ = ('make',)

    def __init__(self, name: str, make: Callable[..., Any]):
        super().__init__(name)
        self.make = make


class _Dtype(SetAside):
    """A numpy dtype in the making: its code, and its byte order, which comes later."""

    __slots__ = ('code', 'order')

    def __init__(self, code: Any):
        super().__init__('numpy.dtype')
        self.code, self.order = code if isinstance(code, str) else '', '<'

    def read(self, data: Any) -> np.ndarray:
        """The numbers in some bytes, one-dimensional."""
        if not re.fullmatch('b1|[iu][1248]|f[248]', self.code) or not isinstance(data, (bytes, str)):
            raise _NotPlain(self.name)
        data = data.encode('latin-1') if isinstance(data, str) else data  # Python 2 had one type for both
        return np.frombuffer(data, np.dtype(f'{self.order}{self.code}'))


class _Array(SetAside):
    """A numpy array in the making: `values`, once its state has come."""

    __slots__ = ('values',)

    def __init__(self):
        super().__init__('numpy.ndarray')
        self.values: Any = None


class _NotPlain(Exception):
    """Something known that cannot become a plain value: it is set aside under the name given."""


class PickleInterpreter:
    """Interprets the pickles of one file, one after the other.

    Args:
        storage: callable (dtype, key, count) that returns the numbers tensors refer to, one-dimensional; asked for once
            a key.
        size: bytes of the file: what its tensors may amount to is measured by it.
    """

    def __init__(self, storage: Callable[[torch.dtype, str, int], torch.Tensor], size: int):
        self._storage = storage
        self._storages: dict[str, torch.Tensor] = {}
        self._allowed = 4 * size + (1 << 20)  # bytes of all tensors, sharing or not, and of whatever is copied
        self._opcodes = 0
        self._names: set[str] = set()

    def set_aside(self) -> tuple[str, ...]:
        """Names that were met and not looked up."""
        return tuple(sorted(self._names))

    def run(self, stream: BinaryIO) -> Any:
        """Interpret one pickle and return its value; leaves the stream behind it."""
        self._stack: list = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(stream):
            self._opcodes += 1
            if self._opcodes > MAX_OPCODES:
                raise CheckpointError(f'a pickle of more than {MAX_OPCODES:,} opcodes; refused')
            name = opcode.name
            if name in _PUSHED:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            elif name == 'STOP':
                return _plain(self._pop())
            elif name not in _IGNORED:
                _OPCODES[name](self, argument)
        raise CheckpointError('a pickle without an end')

    # --- the stack ---

    def _pop(self) -> Any:
        return _no_mark(self._stack.pop())

    def _top(self) -> Any:
        return _no_mark(self._stack[-1])

    def _pop_to_mark(self) -> list:
        """The values above the uppermost mark, which goes too."""
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                items = self._stack[index + 1:]
                del self._stack[index:]
                return [_plain(item) for item in items]
        raise CheckpointError('a damaged pickle')

    def _pop_some(self, count: int) -> list:
        if len(self._stack) < count:
            raise CheckpointError('a damaged pickle')
        items = self._stack[len(self._stack) - count:]
        del self._stack[len(self._stack) - count:]
        return [_plain(_no_mark(item)) for item in items]

    # --- opcodes, by what they do; the argument is the one in the pickle ---

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _drop(self, _: Any) -> None:
        self._stack.pop()

    def _drop_to_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def _put(self, key: int | None) -> None:
        self._memo[len(self._memo) if key is None else key] = self._top()

    def _get(self, key: int) -> None:
        self._stack.append(self._memo[key])

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _tuple_1(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_some(1)))

    def _tuple_2(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_some(2)))

    def _tuple_3(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_some(3)))

    def _dict(self, _: Any) -> None:
        items, made = self._pop_to_mark(), {}
        _set_items(made, items)
        self._stack.append(made)

    def _frozen_set(self, _: Any) -> None:
        items, made = self._pop_to_mark(), set()
        _add(made, items)
        self._stack.append(made)

    def _add_one(self, _: Any) -> None:
        item = self._pop_some(1)
        _add(self._top(), item)

    def _add_many(self, _: Any) -> None:
        items = self._pop_to_mark()
        _add(self._top(), items)

    def _set_item(self, _: Any) -> None:
        items = self._pop_some(2)
        _set_items(self._top(), items)

    def _set_many(self, _: Any) -> None:
        items = self._pop_to_mark()
        _set_items(self._top(), items)

    def _global(self, argument: str) -> None:
        self._stack.append(self._named(*argument.split(' ', 1)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(self._named(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, what = self._pop(), self._pop()
        self._stack.append(self.make(what, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        self._pop()
        self._reduce(None)

    def _object(self, _: Any) -> None:
        what, *arguments = self._pop_to_mark()
        self._stack.append(self.make(what, tuple(arguments)))

    def _instance(self, argument: str) -> None:
        arguments = self._pop_to_mark()
        self._stack.append(self.make(self._named(*argument.split(' ', 1)), tuple(arguments)))

    def _build(self, _: Any) -> None:
        """Give the uppermost value its state; only numpy's have one that matters."""
        state, target = self._pop(), self._top()
        if isinstance(target, _Dtype):
            target.order = '>' if isinstance(state, tuple) and '>' in state[1:2] else '<'
        elif isinstance(target, _Array):
            try:
                self._fill(target, *state)
            except _NotPlain as reason:
                self._names.add(str(reason))

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._storage_of(*self._pop()))

    # --- what they make ---

    def spend(self, size: int) -> None:
        """Count memory that the file did not pay for with as many bytes of its own."""
        self._allowed -= size
        if self._allowed < 0:
            raise CheckpointError('what it describes is far larger than the file; refused')

    def _named(self, module: Any, name: Any) -> Any:
        """What stands for a class or function named in the file."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError('a damaged pickle')
        full = f'{module}.{name}'
        if module == 'torch' and name in DTYPES:
            return DTYPES[name]
        if full in _MAKERS:
            return _Known(full, _MAKERS[full])
        if module == 'torch' and isinstance(vars(torch).get(name), torch.dtype):
            return full
        self._names.add(full)
        return SetAside(full)

    def make(self, what: Any, arguments: Any) -> Any:
        """What a known name makes of its arguments; with any other nothing is made."""
        name = what.name if isinstance(what, SetAside) else type(what).__name__
        if isinstance(what, _Known) and isinstance(arguments, tuple):
            try:
                return what.make(self, *arguments)
            except _NotPlain as reason:
                name = str(reason)
                self._names.add(name)
        return SetAside(name)

    def _fill(self, array: _Array, _: Any, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, str)) or len(data) > MAX_ARRAY_BYTES:
            raise _NotPlain(array.name)
        values = dtype.read(data)
        if not len(values):
            array.values = []  # whatever its other sides are
            return
        self.spend(64 * len(values) * (1 + len(shape)))
        array.values = values.reshape(shape, order='F' if fortran else 'C').tolist()

    def _storage_of(self, kind: Any, dtype: Any, key: Any, _: Any, count: Any, view: Any = None
                    ) -> torch.Tensor | SetAside:
        """The storage that a persistent id names, or the part of it that the legacy format calls a view."""
        if kind != 'storage' or not isinstance(dtype, torch.dtype):
            return SetAside('a storage of another kind')
        if type(count) is not int or count < 0 or not isinstance(key, str):
            raise CheckpointError('a damaged storage')
        if key not in self._storages:
            self._storages[key] = self._storage(dtype, key, count)
        storage = self._storages[key]
        if storage.dtype != dtype or len(storage) != count:
            raise CheckpointError(f'storage {key} is described in two ways')
        if view is None:
            return storage
        _, offset, length = view
        if type(offset) is not int or type(length) is not int or not 0 <= offset <= offset + length <= count:
            raise CheckpointError('a view outside of its storage')
        return storage[offset:offset + length]

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor | SetAside:
        """A view of a storage, after checking that it lies in it."""
        if isinstance(storage, SetAside):
            return storage
        numbers = (offset, *size, *stride)
        if not isinstance(storage, torch.Tensor) or len(size) != len(stride) or len(size) > MAX_DIMENSIONS or any(
                type(number) is not int or number < 0 for number in numbers):
            raise CheckpointError('a damaged tensor')
        count, last = 1, offset
        for length, step in zip(size, stride, strict=True):
            count, last = count * length, last + (length - 1) * step
        if count and (last >= len(storage) or count > len(storage)):
            raise CheckpointError(f'a tensor of shape {tuple(size)} in a storage of {len(storage)} values; a '
                                  'checkpoint has to hold every value of its tensors')
        self.spend(count * storage.element_size())
        return storage.as_strided(size, stride, offset) if count else storage.new_empty(size)


def _dict(interpreter: PickleInterpreter, *arguments: Any) -> dict:
    """A dict; of the arguments only what dict() takes counts (a default factory does not), items may follow."""
    found: dict = {}
    if len(arguments) == 1 and isinstance(arguments[0], (list, dict)):
        pairs = list(arguments[0].items() if isinstance(arguments[0], dict) else arguments[0])
        interpreter.spend(100 * len(pairs))
        _set_items(found, [part for key, value in pairs for part in (key, value)])
    return found


def _set(interpreter: PickleInterpreter, items: Any = ()) -> set:
    if not isinstance(items, (list, tuple, set)) or not all(isinstance(item, _PLAIN) for item in items):
        raise _NotPlain('set')
    interpreter.spend(100 * len(items))
    return set(items)


def _encode(interpreter: PickleInterpreter, text: Any, encoding: Any = 'latin1') -> bytes:
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise _NotPlain('_codecs.encode')
    interpreter.spend(len(text))
    return text.encode('latin-1')


def _scalar(_: PickleInterpreter, dtype: Any, data: Any = b'') -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, str)) or len(data) > 8:
        raise _NotPlain('numpy scalar')
    values = dtype.read(data)
    if len(values) != 1:
        raise _NotPlain('numpy scalar')
    return values.item()


def _size(interpreter: PickleInterpreter, sizes: Any = ()) -> tuple:
    interpreter.spend(8 * len(sizes))
    return tuple(sizes)


_MAKERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_DICTS, _dict),
    **dict.fromkeys(('torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_tensor'), PickleInterpreter.tensor),
    **dict.fromkeys(('torch._utils._rebuild_parameter', 'torch._utils._rebuild_parameter_with_state'),
                    lambda interpreter, data, *_: data),
    'torch._tensor._rebuild_from_type_v2': lambda interpreter, function, kind, arguments, state: interpreter.make(
        function, arguments),  # a subclass, or a tensor with attributes
    'torch.Size': _size,
    **dict.fromkeys(('builtins.set', '__builtin__.set', 'builtins.frozenset', '__builtin__.frozenset'), _set),
    '_codecs.encode': _encode,
    'numpy.dtype': lambda interpreter, code, *_: _Dtype(code),
    **{f'numpy.{core}.multiarray.scalar': _scalar for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray._reconstruct': lambda interpreter, *_: _Array() for core in ('core', '_core')},
    'numpy.ndarray': lambda interpreter, *_: _Array(),
}


def _set_items(target: Any, items: list) -> None:
    """Keys and values in turn. Only plain keys: hashing a tuple nested deep enough would end the process."""
    if not isinstance(target, dict):
        return
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, _PLAIN) or isinstance(key, tuple) and all(isinstance(part, _PLAIN) for part in key):
            target[key] = value


def _add(target: Any, items: list) -> None:
    """Items to a list or set; to what is set aside nothing is added."""
    if isinstance(target, list):
        target += items
    elif isinstance(target, set):
        target.update(item for item in items if isinstance(item, _PLAIN))


def _no_mark(value: Any) -> Any:
    if value is _MARK:
        raise CheckpointError('a damaged pickle')
    return value


def _plain(value: Any) -> Any:
    """A numpy array as the list it has become; anything else as it is."""
    return value.values if isinstance(value, _Array) and value.values is not None else value


_OPCODES: dict[str, Callable[[PickleInterpreter, Any], None]] = {
    'MARK': PickleInterpreter._mark, 'POP': PickleInterpreter._drop, 'POP_MARK': PickleInterpreter._drop_to_mark,
    'DUP': PickleInterpreter._duplicate,
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), PickleInterpreter._put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), PickleInterpreter._get),
    'LIST': PickleInterpreter._list, 'TUPLE': PickleInterpreter._tuple, 'TUPLE1': PickleInterpreter._tuple_1,
    'TUPLE2': PickleInterpreter._tuple_2, 'TUPLE3': PickleInterpreter._tuple_3, 'DICT': PickleInterpreter._dict,
    'FROZENSET': PickleInterpreter._frozen_set, 'APPEND': PickleInterpreter._add_one,
    **dict.fromkeys(('APPENDS', 'ADDITEMS'), PickleInterpreter._add_many),
    'SETITEM': PickleInterpreter._set_item, 'SETITEMS': PickleInterpreter._set_many,
    'GLOBAL': PickleInterpreter._global, 'STACK_GLOBAL': PickleInterpreter._stack_global,
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), PickleInterpreter._reduce),
    'NEWOBJ_EX': PickleInterpreter._new_with_keywords, 'OBJ': PickleInterpreter._object,
    'INST': PickleInterpreter._instance, 'BUILD': PickleInterpreter._build, 'BINPERSID': PickleInterpreter._persistent,
}
