"""What a page of `emergraph explore` holds, unpacked as its script unpacks it."""

import base64
import json
import re
import struct
import zlib

import numpy as np


def unpacked(text):
    """Header and arrays of packed data."""
    raw = zlib.decompress(base64.b64decode(text))
    (length,) = struct.unpack_from("<I", raw)
    header = json.loads(raw[4 : 4 + length])
    at, arrays = 4 + length, {}
    for name, kind, count in header["arrays"]:
        size = int(kind[1])
        planes = np.frombuffer(raw, np.uint8, size * count, at).reshape(size, count)
        arrays[name] = np.ascontiguousarray(planes.T).reshape(-1).view(f"<{kind}")
        at += size * count
    assert at == len(raw)
    return header, arrays


def page_data(page):
    """Header and arrays of a page."""
    return unpacked(re.search(r'<script id="data" type="text/plain">([^<]*)</script>', page)[1])
