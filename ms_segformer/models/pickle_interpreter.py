"""Interprets a pickle's opcodes by a small machine that can make tensors and plain values, and nothing else.

- Tensors, numbers, strings, lists, tuples, dicts and sets become themselves.
- Dict classes (`OrderedDict`, `defaultdict`, `addict.Dict`, mmcv's `ConfigDict`) become dicts, numpy's numbers and
  small arrays become numbers and lists, and a parameter becomes its tensor.
- Any other class or function, and whatever would be made with it, becomes a `SetAside` that knows its name.

No name in a pickle is ever imported and nothing in it is ever called. So that a small file takes little time and
memory, whatever is unpacked, repeated, hashed or put into a message is of a known type and bounded length, what a
tensor says of itself is held against the numbers that are there, and what is copied is counted.
"""

import math
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

from ..errors import SegformerError

MAX_OPCODES = 1_000_000  # of the pickles in a file; B5 with its optimizer's state and an average has about 150,000
MAX_COPIED_BYTES = 64 << 20  # of arrays that become lists, dicts and sets made of others, text that becomes bytes
MAX_DIMENSIONS = 64  # of a tensor or array; torch's own limit
MAX_ARGUMENTS = 16
MAX_NAME = 300  # characters of a class or function
MAX_INTEGER_BITS = 128  # the legacy format begins with a number of 77
DTYPES = {
    'FloatStorage': torch.float32,
    'DoubleStorage': torch.float64,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}
BYTES = {dtype: torch.empty(0, dtype=dtype).element_size() for dtype in DTYPES.values()}  # of one value

_DICTS = {
    'collections.OrderedDict',
    'collections.defaultdict',
    'collections.Counter',
    'builtins.dict',
    '__builtin__.dict',
    'addict.Dict',
    'addict.addict.Dict',
    'mmcv.utils.config.ConfigDict',
    'mmengine.config.config.ConfigDict',
    'modelscope.utils.config.ConfigDict',
}
_PUSHED = {  # opcodes that push the value pickletools has decoded for them
    'INT',
    'BININT',
    'BININT1',
    'BININT2',
    'LONG',
    'LONG1',
    'LONG4',
    'FLOAT',
    'BINFLOAT',
    'STRING',
    'BINSTRING',
    'SHORT_BINSTRING',
    'UNICODE',
    'SHORT_BINUNICODE',
    'BINUNICODE',
    'BINUNICODE8',
    'SHORT_BINBYTES',
    'BINBYTES',
    'BINBYTES8',
    'BYTEARRAY8',
}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_EMPTY = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': set}
_IGNORED = {'PROTO', 'FRAME', 'READONLY_BUFFER'}
_MARK = object()


class CheckpointError(SegformerError, ValueError):
    """A checkpoint that is missing, unreadable or does not fit; the message says which and what to do."""


class SetAside:
    """Stands for a class or function named in a file, or for what would have been made with it; does nothing.

    Attributes:
        name: `module.name` as the file has it, or what it is in words.
    """

    __slots__ = ('name',)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f'<{shown(self.name)}, set aside>'


def shown(text: object) -> str:
    """Text of a file as it may stand in a message: on one line, without control characters, at most 80 characters."""
    text = (
        text
        if isinstance(text, str)
        else repr(text)
        if isinstance(text, (int, float, type(None)))
        else (type(text).__name__)
    )
    text = ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text[:81])
    return text if len(text) <= 80 else f'{text[:79]}…'


class _Known(SetAside):
    """A name in the file that is known: `make` takes the interpreter and the arguments that come with it."""

    __slots__ = ('make',)

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        super().__init__(name)
        self.make = make


class _Dtype(SetAside):
    """A numpy dtype in the making: its code, and its byte order, which comes later."""

    __slots__ = ('code', 'order')

    def __init__(self, code: Any) -> None:
        super().__init__('numpy.dtype')
        self.code, self.order = code if isinstance(code, str) else '', '<'

    def read(self, data: Any) -> np.ndarray:
        """The numbers or texts in some bytes, one-dimensional."""
        if not re.fullmatch('b1|[iu][1248]|f[248]|U[1-9][0-9]{0,3}', self.code):
            raise _NotPlain(self.name)
        data = data.encode('latin-1') if isinstance(data, str) else data  # Python 2 had one type for both
        return np.frombuffer(data, np.dtype(f'{self.order}{self.code}'))


class _Array(SetAside):
    """A numpy array in the making: `values`, once its state has come."""

    __slots__ = ('values',)

    def __init__(self) -> None:
        super().__init__('numpy.ndarray')
        self.values: Any = None


class _NotPlain(Exception):
    """Something known that cannot become a plain value: it is set aside under the name given."""


class PickleInterpreter:
    """Interprets the pickles of one file, one after the other.

    Args:
        storage: callable (dtype, key, count) that returns the numbers tensors refer to, one-dimensional; asked for once
            a key.
    """

    def __init__(self, storage: Callable[[torch.dtype, str, int], torch.Tensor]) -> None:
        self._storage = storage
        self._storages: dict[str, torch.Tensor] = {}
        self._allowed = MAX_COPIED_BYTES
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
                long = isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS
                self._stack.append(SetAside('an integer of many digits') if long else argument)
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
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return [_plain(item) for item in items]
        raise CheckpointError('a damaged pickle')

    def _pop_some(self, count: int) -> list:
        if len(self._stack) < count:
            raise CheckpointError('a damaged pickle')
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
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
        items = self._pop_to_mark()
        made: dict[Any, Any] = {}
        _set_items(made, items)
        self._stack.append(made)

    def _frozen_set(self, _: Any) -> None:
        items = self._pop_to_mark()
        made: set[Any] = set()
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
            big = isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) and state[1] == '>'
            target.order = '>' if big else '<'
        elif isinstance(target, _Array):
            try:
                _, shape, dtype, fortran, data = _sequence(state, 5)
                target.values = self.array(data, dtype, shape, fortran is True)
            except _NotPlain as reason:
                self._names.add(str(reason))

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._storage_of(*_sequence(self._pop(), 6)))

    # --- what they make ---

    def spend(self, size: int, name: str) -> None:
        """Count memory that the file did not pay for with bytes of its own; what is too much is set aside."""
        if size > self._allowed:
            raise _NotPlain(name)
        self._allowed -= size

    def _named(self, module: Any, name: Any) -> Any:
        """What stands for a class or function named in the file."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
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
        if isinstance(what, _Known) and isinstance(arguments, tuple) and len(arguments) <= MAX_ARGUMENTS:
            try:
                return what.make(self, *arguments)
            except _NotPlain as reason:
                name = str(reason)
                self._names.add(name)
        return SetAside(name)

    def array(self, data: Any, dtype: Any, shape: Any, fortran: bool) -> list:
        """A numpy array as nested lists."""
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray, str)):
            raise _NotPlain('numpy.ndarray')
        shape = _sequence(shape, MAX_DIMENSIONS)
        self.spend(len(data), 'numpy.ndarray')
        values = dtype.read(data)
        lists = sum(math.prod(shape[:axis]) for axis in range(1, len(shape))) if len(values) else 0
        self.spend(32 * len(values) + 80 * lists, 'numpy.ndarray')
        return values.reshape(shape, order='F' if fortran else 'C').tolist() if len(values) else []

    def _storage_of(
        self, kind: Any, dtype: Any, key: Any, _: Any, count: Any, view: Any = None
    ) -> torch.Tensor | SetAside:
        """The storage that a persistent id names, or the part of it that the legacy format calls a view."""
        if not isinstance(kind, str) or kind != 'storage' or not isinstance(dtype, torch.dtype):
            return dtype if isinstance(dtype, SetAside) else SetAside('torch storage of another kind')
        if type(count) is not int or count < 0 or not isinstance(key, str):
            raise CheckpointError('a damaged storage')
        if key not in self._storages:
            self._storages[key] = self._storage(dtype, key, count)
        storage = self._storages[key]
        if storage.dtype != dtype or len(storage) != count:
            raise CheckpointError(f'storage {shown(key)} is described in two ways')
        if view is None:
            return storage
        _, offset, length = _sequence(view, 3)
        if type(offset) is not int or type(length) is not int or not 0 <= offset <= offset + length <= count:
            raise CheckpointError('a view outside of its storage')
        return storage[offset : offset + length]

    def tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> torch.Tensor | SetAside:
        """A view of a storage, after checking that it lies in it."""
        if isinstance(storage, SetAside):
            return storage
        size, stride = _sequence(size, MAX_DIMENSIONS), _sequence(stride, MAX_DIMENSIONS)
        if (
            not isinstance(storage, torch.Tensor)
            or len(size) != len(stride)
            or any(type(number) is not int or not 0 <= number < 1 << 63 for number in (offset, *size, *stride))
        ):
            raise CheckpointError('a damaged tensor')
        if metadata:
            raise _NotPlain('torch.Tensor with a negative or conjugate bit')
        if 0 in size:
            return storage.new_empty(size)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if last >= len(storage) or math.prod(size) > len(storage):
            raise _NotPlain(f'torch.Tensor of shape {shown(str(size))} in a storage of {len(storage)} values')
        return storage.as_strided(size, stride, offset)


def _sequence(value: Any, most: int) -> tuple:
    """A tuple or list of at most so many parts, for what is unpacked or gone through."""
    if not isinstance(value, (tuple, list)) or len(value) > most:
        raise CheckpointError('a damaged pickle')
    return tuple(value)


def _dict(interpreter: PickleInterpreter, *arguments: Any) -> dict:
    """A dict; of the arguments only what dict() takes counts (a default factory does not), items may follow."""
    found: dict = {}
    if len(arguments) == 1 and isinstance(arguments[0], (list, dict)):
        interpreter.spend(200 * len(arguments[0]), 'dict')
        pairs = arguments[0].items() if isinstance(arguments[0], dict) else arguments[0]
        _set_items(found, [part for pair in pairs for part in _sequence(pair, 2)])
    return found


def _set(interpreter: PickleInterpreter, items: Any = ()) -> set:
    if not isinstance(items, (list, tuple, set)):
        raise _NotPlain('set')
    interpreter.spend(200 * len(items), 'set')
    made: set = set()
    _add(made, list(items))
    return made


def _encode(interpreter: PickleInterpreter, text: Any, encoding: Any = 'latin1') -> bytes:
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding not in ('latin1', 'latin-1'):
        raise _NotPlain('_codecs.encode')
    interpreter.spend(len(text), '_codecs.encode')
    return text.encode('latin-1')


def _scalar(_: PickleInterpreter, dtype: Any, data: Any = b'') -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, str)) or len(data) > 4096:
        raise _NotPlain('numpy scalar')
    values = dtype.read(data)
    if len(values) != 1:
        raise _NotPlain('numpy scalar')
    return values.item()


def _typed_tensor(interpreter: PickleInterpreter, function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """A tensor of a subclass, or with attributes, as the tensor it is."""
    return interpreter.make(function, arguments)


def _from_buffer(interpreter: PickleInterpreter, data: Any, dtype: Any, shape: Any, order: Any = 'C') -> list:
    return interpreter.array(data, dtype, shape, isinstance(order, str) and order == 'F')


def _only_named(interpreter: PickleInterpreter, *_: Any) -> Any:
    """Classes that stand beside what is taken: a tensor's class, the factory of a defaultdict."""
    raise _NotPlain('an object')


_MAKERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_DICTS, _dict),
    **dict.fromkeys(('torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_tensor'), PickleInterpreter.tensor),
    **dict.fromkeys(
        ('torch._utils._rebuild_parameter', 'torch._utils._rebuild_parameter_with_state'),
        lambda interpreter, data, *_: data,
    ),
    **dict.fromkeys(
        ('torch._tensor._rebuild_from_type_v2', 'torch._tensor._rebuild_from_type', 'torch.tensor._rebuild_from_type'),
        _typed_tensor,
    ),
    **dict.fromkeys(
        (
            'torch.Tensor',
            'torch.nn.parameter.Parameter',
            'torch.nn.parameter.Buffer',
            *(
                f'{module}.{name}'
                for module in ('builtins', '__builtin__')
                for name in ('list', 'int', 'float', 'str', 'tuple')
            ),
        ),
        _only_named,
    ),
    'torch.Size': lambda interpreter, sizes=(): _sequence(sizes, MAX_DIMENSIONS),
    **dict.fromkeys(('builtins.set', '__builtin__.set', 'builtins.frozenset', '__builtin__.frozenset'), _set),
    '_codecs.encode': _encode,
    'numpy.dtype': lambda interpreter, code, *_: _Dtype(code),
    'numpy.ndarray': lambda interpreter, *_: _Array(),
    **{
        f'numpy.{core}.multiarray.{name}': make
        for core in ('core', '_core')
        for name, make in (('scalar', _scalar), ('_reconstruct', lambda interpreter, *_: _Array()))
    },
    **{f'numpy.{core}.numeric._frombuffer': _from_buffer for core in ('core', '_core')},
}


def _is_key(value: Any) -> bool:
    """Whether a value may be hashed: hashing deep tuples ends the process, wide or colliding ones take for ever."""
    return value is None or isinstance(value, (str, bytes, float)) or isinstance(value, int) and abs(value) < 1 << 53


def _set_items(target: Any, items: list) -> None:
    """Keys and values in turn to a dict; items with keys of other kinds are left out."""
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if _is_key(key):
                target[key] = value


def _add(target: Any, items: list) -> None:
    """Items to a list or set; to what is set aside nothing is added."""
    if isinstance(target, list):
        target += items
    elif isinstance(target, set):
        target.update(filter(_is_key, items))


def _no_mark(value: Any) -> Any:
    if value is _MARK:
        raise CheckpointError('a damaged pickle')
    return value


def _plain(value: Any) -> Any:
    """A numpy array as the list it has become; anything else as it is."""
    return value.values if isinstance(value, _Array) and value.values is not None else value


_OPCODES: dict[str, Callable[[PickleInterpreter, Any], None]] = {
    'MARK': PickleInterpreter._mark,
    'POP': PickleInterpreter._drop,
    'POP_MARK': PickleInterpreter._drop_to_mark,
    'DUP': PickleInterpreter._duplicate,
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), PickleInterpreter._put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), PickleInterpreter._get),
    'LIST': PickleInterpreter._list,
    'TUPLE': PickleInterpreter._tuple,
    'TUPLE1': PickleInterpreter._tuple_1,
    'TUPLE2': PickleInterpreter._tuple_2,
    'TUPLE3': PickleInterpreter._tuple_3,
    'DICT': PickleInterpreter._dict,
    'FROZENSET': PickleInterpreter._frozen_set,
    'APPEND': PickleInterpreter._add_one,
    **dict.fromkeys(('APPENDS', 'ADDITEMS'), PickleInterpreter._add_many),
    'SETITEM': PickleInterpreter._set_item,
    'SETITEMS': PickleInterpreter._set_many,
    'GLOBAL': PickleInterpreter._global,
    'STACK_GLOBAL': PickleInterpreter._stack_global,
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), PickleInterpreter._reduce),
    'NEWOBJ_EX': PickleInterpreter._new_with_keywords,
    'OBJ': PickleInterpreter._object,
    'INST': PickleInterpreter._instance,
    'BUILD': PickleInterpreter._build,
    'BINPERSID': PickleInterpreter._persistent,
}
