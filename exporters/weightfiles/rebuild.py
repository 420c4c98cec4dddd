"""The list of what a pickle of weights may call, each with an inert stand-in for the original."""

from collections.abc import Callable

from emergraph.exporters.weightfiles.dtypes import TORCH_DTYPES, TORCH_STORAGES
from emergraph.exporters.weightfiles.numpyobjects import (
    NUMPY_GLOBALS,
    Function,
    InertDict,
    Named,
    NoData,
    SparseRef,
    StorageRef,
    TensorRef,
    integers,
    wrong_value,
)

Tensorish = TensorRef | SparseRef | NoData
_MAX_KEY_ITEMS = 64


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorRef:
    if not isinstance(storage, StorageRef) or type(offset) is not int:
        raise wrong_value("a tensor")
    shape, strides = integers(size, "a tensor's shape"), integers(stride, "a tensor's strides")
    return TensorRef(storage=storage, dtype=storage.dtype, offset=offset, shape=shape, strides=strides)


def _tensor_v2(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    grad: object = None,
    hooks: object = None,
    metadata: object = None,
) -> TensorRef:
    del grad, hooks
    return _noted(_tensor(storage, offset, size, stride), metadata)


def _tensor_v3(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> TensorRef:
    del grad, hooks
    ref = _noted(_tensor(storage, offset, size, stride), metadata)
    if not isinstance(dtype, Named) or dtype.dtype is None or dtype.storage:
        raise wrong_value("a tensor's element type")
    return _replaced(ref, dtype=dtype.dtype)


def _qtensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    scheme: object,
    grad: object = None,
    hooks: object = None,
) -> TensorRef:
    del grad, hooks
    if not isinstance(scheme, tuple) or not scheme or not isinstance(scheme[0], Named):
        raise wrong_value("a quantized tensor")
    return _replaced(_tensor(storage, offset, size, stride), scheme=scheme)


def _noted(ref: TensorRef, metadata: object) -> TensorRef:
    if isinstance(metadata, dict) and any(metadata.get(bit) for bit in ("conj", "neg")):
        return _replaced(ref, note="it is stored as the conjugate or negative of its values")
    return ref


def _replaced(ref: TensorRef, **changes: object) -> TensorRef:
    fields = {name: getattr(ref, name) for name in TensorRef.__slots__}
    return TensorRef(**{**fields, **changes})


def _parameter(data: object, *_: object) -> Tensorish:
    if not isinstance(data, Tensorish):
        raise wrong_value("a parameter")
    return data


def _typed(function: object, kind: object, arguments: object, state: object) -> object:
    """A tensor subclass, or a tensor with attributes: the attributes are left out."""
    del kind, state
    if not isinstance(function, Function) or not isinstance(arguments, tuple) or function.call is _typed:
        raise wrong_value("a tensor")
    return function(*arguments)


def _meta(dtype: object, size: object, stride: object, grad: object) -> NoData:
    del dtype, stride, grad
    return NoData(
        "it is on torch's device meta and has no values", "TENSOR-NO-DATA", integers(size, "a shape")
    )


def _sparse(layout: object, data: object) -> SparseRef:
    parts = data if isinstance(data, tuple) else ()
    tensors = tuple(part for part in parts if isinstance(part, TensorRef))
    sizes = [part for part in parts if isinstance(part, tuple)]
    if not isinstance(layout, str) or len(sizes) != 1 or len(tensors) not in {2, 3}:
        raise wrong_value("a sparse tensor")
    return SparseRef(layout, tensors, integers(sizes[0], "a sparse tensor's shape"))


def _undecoded(kind: str) -> Function:
    def call(*_: object) -> NoData:
        return NoData(f"a {kind} is not decoded; save it as a plain tensor", "TENSOR-UNREADABLE")

    return Function(kind, call)


def _size(sizes: object = ()) -> tuple[int, ...]:
    return integers(sizes, "a size")


def _text(*parts: object) -> str:
    if not all(type(part) in {str, int} for part in parts):
        raise wrong_value("a name")
    return ":".join(str(part)[:256] for part in parts)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """What protocol 2 calls to make bytes."""
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise wrong_value("bytes")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise wrong_value("bytes") from None


def _bytearray(content: object = b"", encoding: object = "latin-1") -> bytes:
    return bytes(content) if isinstance(content, (bytes, bytearray)) else _encode(content, encoding)


def _plain_key(key: object) -> bool:
    """Tell whether hashing a key takes bounded time: a plain value, or a short flat tuple of them."""
    if isinstance(key, tuple):
        return len(key) <= _MAX_KEY_ITEMS and all(
            not isinstance(item, tuple) and _plain_key(item) for item in key
        )
    if isinstance(key, int):
        return key.bit_length() <= 60
    return isinstance(key, (str, bytes, float, type(None), Named))


def _mapping(*arguments: object) -> InertDict:
    """OrderedDict() or OrderedDict(pairs); Counter(dict); defaultdict(factory), whose factory is dropped."""
    result = InertDict()
    if arguments and (isinstance(arguments[0], (Named, Function)) or arguments[0] is None):
        arguments = arguments[1:]
    for argument in arguments:
        pairs = list(argument.items()) if isinstance(argument, dict) else argument
        if not isinstance(pairs, (list, tuple)):
            raise wrong_value("a dict")
        for pair in pairs:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not _plain_key(pair[0]):
                raise wrong_value("a dict")
            result[pair[0]] = pair[1]
    return result


def _set(elements: object = ()) -> list[object]:
    """A set, kept as the list that the pickle gives: no element is hashed."""
    if not isinstance(elements, (list, tuple)):
        raise wrong_value("a set")
    return elements if isinstance(elements, list) else list(elements)


def _complex(real: object = 0.0, imaginary: object = 0.0) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise wrong_value("a complex number")
    return complex(real, imaginary)


def _same(value: object, *_: object) -> object:
    """TorchScript's typed lists: the list itself."""
    return value


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor_v2,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_qtensor": _qtensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._utils _rebuild_meta_tensor_no_storage": _meta,
    "torch._utils _rebuild_sparse_tensor": _sparse,
    "torch._tensor _rebuild_from_type_v2": _typed,
    "torch Size": _size,
    "torch device": _text,
    "torch.serialization _get_layout": _text,
    "collections OrderedDict": _mapping,
    "collections defaultdict": _mapping,
    "collections Counter": _mapping,
    "_codecs encode": _encode,
    "torch.jit._pickle build_intlist": _same,
    "torch.jit._pickle build_doublelist": _same,
    "torch.jit._pickle build_boollist": _same,
    "torch.jit._pickle build_tensorlist": _same,
    "torch.jit._pickle restore_type_tag": _same,
}
_BUILTIN_FUNCTIONS: dict[str, Callable[..., object]] = {
    "set": _set,
    "frozenset": _set,
    "bytearray": _bytearray,
    "complex": _complex,
}
_BUILTIN_TYPES = (
    "list",
    "dict",
    "tuple",
    "int",
    "float",
    "str",
    "bytes",
    "bool",
    "object",
    "long",
    "unicode",
)
_UNDECODED = {
    "torch._utils _rebuild_nested_tensor": "nested tensor",
    "torch._utils _rebuild_wrapper_subclass": "tensor subclass",
    "torch._utils _rebuild_device_tensor_from_numpy": "tensor of another device",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor": "tensor of another device",
    "torch._utils _rebuild_xla_tensor": "tensor of another device",
}
_SCHEMES = (
    "per_tensor_affine",
    "per_channel_affine",
    "per_channel_affine_float_qparams",
    "per_tensor_symmetric",
    "per_channel_symmetric",
)
_TYPES = ("torch Tensor", "torch.nn.parameter Parameter", "torch.nn.parameter Buffer", "torch._tensor Tensor")


def _storages() -> dict[str, object]:
    names: dict[str, object] = {}
    for name, dtype in TORCH_STORAGES.items():
        for module in ("torch", "torch.cuda", "torch.storage"):
            names[f"{module} {name}"] = Named(name, dtype, storage=True)
    return names


ALLOWED: dict[str, object] = {
    **{name: Function(name, call) for name, call in _FUNCTIONS.items()},
    **{
        f"{m} {n}": Function(n, call)
        for m in ("builtins", "__builtin__")
        for n, call in _BUILTIN_FUNCTIONS.items()
    },
    **{f"{m} {n}": Named(n) for m in ("builtins", "__builtin__") for n in _BUILTIN_TYPES},
    **{name: _undecoded(kind) for name, kind in _UNDECODED.items()},
    **{f"torch {name}": Named(name) for name in _SCHEMES},
    **{f"torch {name}": Named(name, dtype) for name, dtype in TORCH_DTYPES.items()},
    **{name: Named(name) for name in _TYPES},
    "typing Any": Named("typing Any"),
    **_storages(),
    **NUMPY_GLOBALS,
}
"""What a pickle may name, "module name" to its stand-in; everything else is a class from elsewhere."""
