"""Element types: what every weight format calls them, by the names of numpy and ml_dtypes."""

from emergraph.exporters.onnxfile.dtypes import BY_NAME, ElementType

UNDECODED: dict[str, int] = {
    "complex32": 32,
    "quint4x2": 8,
    "quint2x4": 8,
    "float4_e2m1fn_x2": 8,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
    "bits8": 8,
    "bits16": 16,
}
"""Element types that are recognised but not decoded, with their bits per element in the file."""

DECODED: dict[str, ElementType] = {
    name: element for name, element in BY_NAME.items() if name != "string" and name not in UNDECODED
}
"""Element types that are decoded exactly."""


def stored_bytes(dtype: str, count: int) -> int:
    """Return the bytes that `count` elements of a type take in a file, a Python integer of any size."""
    bits = UNDECODED[dtype] if dtype in UNDECODED else DECODED[dtype].bits
    return -(-count * bits // 8)


_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")

FLOATING = frozenset({"float16", "float32", "float64", "bfloat16", "float4_e2m1fn", *_FLOAT8})
"""Names of the real floating-point types."""

TORCH_STORAGES: dict[str, str] = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}
"""Element types of torch's storage classes; quantized ones are named by the integers that they hold."""

TORCH_DTYPES: dict[str, str] = {
    **{name: name for name in (*DECODED, *UNDECODED)},
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "chalf": "complex32",
    "qint8": "int8",
    "quint8": "uint8",
    "qint32": "int32",
}
"""Element types by the names under which torch pickles them (`torch.float32`)."""

SAFETENSORS_DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "F4": "float4_e2m1fn",
}
"""Element types by their names in safetensors headers."""

PT2_DTYPES: dict[int, str] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
"""Element types by their numbers in exported programs (torch/_export/serde/schema.py, ScalarType)."""
