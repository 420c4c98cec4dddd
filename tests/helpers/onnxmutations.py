"""Ways to spoil a serialized protobuf message, from single bits to misplaced fields."""

import random
from collections.abc import Callable

Field = tuple[int, int, int, int, int]
"""Number, wire type, start of the field, start of its value, end."""

_INTERESTING = (
    0,
    1,
    2,
    127,
    128,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_MAX_DEPTH = 14


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return a spoiled copy; one to four mutations, most of them in the structure."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if content:
            content = (
                mutate_field(content, rng) if rng.random() < 0.7 else rng.choice(BYTE_MUTATIONS)(content, rng)
            )
    return content


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    """Flip one to eight bits."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """Put random bytes over some."""
    at = rng.randrange(len(content))
    new = rng.randbytes(rng.choice((1, 4, 8, 40)))
    return content[:at] + new + content[at + len(new) :]


def truncate(content: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return content[: rng.randrange(len(content))]


def cut_out(content: bytes, rng: random.Random) -> bytes:
    """Leave out a piece."""
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    b = min(b, a + 1000)
    return content[:a] + content[b:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    """Insert a piece of the content somewhere else."""
    a = rng.randrange(len(content))
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[a : a + rng.randint(1, 300)] + content[at:]


BYTE_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    overwrite,
    truncate,
    cut_out,
    repeat,
)


def fields(content: bytes) -> list[Field] | None:
    """Return the fields of a message; None if it is none."""
    found: list[Field] = []
    at = 0
    while at < len(content):
        start = at
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not number or wire not in (0, 1, 2, 5):
            return None
        value = at
        if wire == 0:
            _, at = _varint(content, at)
        elif wire == 2:
            size, value = _varint(content, at)
            at = value + size
        else:
            at += 4 if wire == 5 else 8
        if value < 0 or not 0 <= at <= len(content):
            return None
        found.append((number, wire, start, value, at))
    return found


def mutate_field(content: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """Spoil one field somewhere in a message; the lengths of what holds it are kept right."""
    parsed = fields(content)
    if not parsed:
        return rng.choice(BYTE_MUTATIONS)(content, rng) if content else rng.randbytes(3)
    index = rng.randrange(len(parsed))
    number, wire, start, value, end = parsed[index]
    inner = content[value:end]
    if wire == 2 and inner and depth < _MAX_DEPTH and rng.random() < 0.85 and fields(inner):
        return content[:start] + encode(number, mutate_field(inner, rng, depth + 1)) + content[end:]
    other = parsed[rng.randrange(len(parsed))]
    this_field, other_field = content[start:end], content[other[2] : other[4]]
    choice = rng.randrange(9)
    if choice == 0:  # swap two fields
        first, second = sorted((parsed[index], other), key=lambda item: item[2])
        middle = content[first[4] : second[2]]
        if first is second:
            return content[:start] + content[end:]
        return (
            content[: first[2]]
            + content[second[2] : second[4]]
            + middle
            + content[first[2] : first[4]]
            + content[second[4] :]
        )
    new = {
        1: lambda: b"",
        2: lambda: this_field * rng.choice((2, 3, 50)),
        3: lambda: this_field + other_field,
        4: lambda: encode_varint(rng.randint(1, 30) << 3 | wire) + content[_after_tag(content, start) : end],
        5: lambda: encode_varint(number << 3 | rng.randrange(8)) + content[_after_tag(content, start) : end],
        6: lambda: encode(number, other_field),
        7: lambda: _other_value(number, wire, inner, rng),
        8: lambda: encode_varint(number << 3 | 2) + encode_varint(rng.choice(_INTERESTING)) + inner,
    }[choice]()
    return content[:start] + new + content[end:]


def _other_value(number: int, wire: int, inner: bytes, rng: random.Random) -> bytes:
    if wire == 0:
        return encode_varint(number << 3) + encode_varint(rng.choice(_INTERESTING))
    if wire == 2:
        texts = (
            b"",
            b"\xff\xfe",
            b"../../etc/passwd",
            b"/dev/zero",
            b"\x1b[2J",
            b"a" * 5000,
            b"-1",
            b"1" * 30,
        )
        return encode(number, rng.choice((*texts, rng.choice(BYTE_MUTATIONS)(inner or b"x", rng))))
    return encode_varint(number << 3 | wire) + rng.randbytes(4 if wire == 5 else 8)


def encode_varint(value: int) -> bytes:
    """Return the protobuf encoding of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def encode(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= at < len(content):
            return 0, -1
        value |= (content[at] & 0x7F) << shift
        at += 1
        if content[at - 1] < 0x80:
            return value, at
    return 0, -1


def _after_tag(content: bytes, start: int) -> int:
    return _varint(content, start)[1]
