"""Makes `vectors/`: small layers as the libraries that pack weights write them, with what they unpack to.

Run where these are installed (they are no dependencies of the tests; versions as in `vectors/versions.json`):

    pip install bitsandbytes compressed-tensors hqq
    pip download --no-deps auto-gptq==0.7.1 autoawq==0.2.9   # unpacked, each folder on PYTHONPATH is searched
    PYTHONPATH=auto_gptq:autoawq python tests/exporters/weightfiles/encodings/make_vectors.py

Each folder holds `model.safetensors`, perhaps `config.json`, and `expected.npz` with the weights in float32.
"""

import importlib.util
import json
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "vectors"
OUT, IN = 16, 64


def weight(seed, *, rows=OUT, columns=IN):
    """A matrix whose rows differ in size, so that an exchange of axes or groups shows."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    return values * torch.linspace(0.5, 2, rows)[:, None]


def write(name, stored, expected, config=None):
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in stored.items()}, folder / "model.safetensors")
    np.savez(folder / "expected.npz", weight=expected.detach().float().numpy())
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"quantization_config": config}) + "\n")


def bitsandbytes():
    import bitsandbytes.functional as four

    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            packed, state = four.quantize_4bit(
                weight(1), blocksize=64, quant_type=kind, compress_statistics=nested
            )
            stored = {f"layer.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
            stored["layer.weight"] = packed
            name = f"bitsandbytes_{kind}{'_nested' if nested else ''}"
            write(name, stored, four.dequantize_4bit(packed, state))
    values = weight(2).half()
    codes, maxima, _ = four.int8_vectorwise_quant(values)
    stored = {
        "layer.weight": codes,
        "layer.SCB": maxima,
        "layer.weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    write("bitsandbytes_int8", stored, four.int8_vectorwise_dequant(codes, maxima))


def compressed_tensors():
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    cases = {
        "pack_4_group": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16}),
        "pack_4_zero": (
            "pack-quantized",
            {"num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": False},
        ),
        "pack_8_channel": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
        "pack_3_group": ("pack-quantized", {"num_bits": 3, "strategy": "group", "group_size": 32}),
        "float8_channel": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
        "int8_tensor": ("int-quantized", {"num_bits": 8, "strategy": "tensor"}),
        "nvfp4": (
            "nvfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
        ),
        "mxfp4": (
            "mxfp4-pack-quantized",
            {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32},
        ),
    }
    for name, (form, settings) in cases.items():
        args = QuantizationArgs(**settings)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        values = weight(3)
        size = args.group_size or (IN if args.strategy == "channel" else OUT * IN)
        grouped = values.reshape(-1, size) if args.strategy == "tensor" else values.reshape(OUT, -1, size)
        low, high = grouped.amin(-1), grouped.amax(-1)
        whole = generate_gparam(values.min(), values.max()) if name == "nvfp4" else None
        scale, zero = calculate_qparams(low, high, args, global_scale=whole)
        state = {"weight": values, "weight_scale": scale}
        if not args.symmetric:
            state["weight_zero_point"] = zero
        if whole is not None:
            state["weight_global_scale"] = whole.reshape(1)
        compressor = BaseCompressor.get_value_from_registry(form)
        packed = compressor.compress(dict(state), scheme)
        back = compressor.decompress(dict(packed), scheme)["weight"]
        config = {
            "quant_method": "compressed-tensors",
            "format": form,
            "config_groups": {
                "group_0": {"targets": ["Linear"], "weights": json.loads(args.model_dump_json())}
            },
        }
        write(f"compressed_{name}", {f"layer.{key}": value for key, value in packed.items()}, back, config)


def hqq():
    from hqq.core.quantize import Quantizer
    from hqq.core.utils import encode_safetensor_type

    for bits in (1, 2, 3, 4, 8):
        for axis in (0, 1):
            codes, meta = Quantizer.quantize(
                weight(4, rows=20, columns=64),
                nbits=bits,
                group_size=32,
                axis=axis,
                optimize=False,
                device="cpu",
                compute_dtype=torch.float32,
            )
            state = {key: encode_safetensor_type(value) for key, value in meta.items()}
            stored = {
                f"layer.{key}": value for key, value in state.items() if isinstance(value, torch.Tensor)
            }
            stored["layer.W_q"] = codes
            write(f"hqq_{bits}_axis{axis}", stored, Quantizer.dequantize(codes, meta))


def module(path, name, **stubs):
    """A single file of a package, with stubs for what it imports and does not need here."""
    for key, value in stubs.items():
        sys.modules[key.replace("__", ".")] = value
    spec = importlib.util.spec_from_file_location(name, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def find(relative):
    return next(path for place in sys.path if (path := Path(place) / relative).is_file())


def grouped_codes(bits, seed, *, symmetric):
    """Scales (OUT, groups), zero points of the same shape, and the weights that they stand for exactly."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (32, IN), generator=generator)
    scales = torch.rand(32, IN // 16, generator=generator) + 0.5
    low = torch.full((32, IN // 16), 1 << (bits - 1))
    zeros = low if symmetric else torch.randint(1, 1 << bits, (32, IN // 16), generator=generator)
    return codes, scales, zeros


def gptq():
    file = find("auto_gptq/nn_modules/qlinear/qlinear_cuda.py")
    text = file.read_text().replace("import transformers", "import types; transformers = types")
    for bits in (2, 3, 4, 8):
        for form in ("v1", "v2", "order"):
            symmetric = form == "order"
            codes, scales, zeros = grouped_codes(bits, 5 + bits, symmetric=symmetric)
            groups = torch.arange(IN) // 16
            if form == "order":
                groups = groups[torch.randperm(IN, generator=torch.Generator().manual_seed(1))]
            values = scales[:, groups] * (codes - zeros[:, groups])
            source = text.replace("zeros -= 1", "") if form == "v2" else text
            layer = pack_gptq(source, values, bits, scales, zeros.float(), groups)
            stored = {f"layer.{key}": getattr(layer, key) for key in ("qweight", "qzeros", "scales", "g_idx")}
            config = {
                "quant_method": "gptq",
                "bits": bits,
                "group_size": 16,
                "checkpoint_format": "gptq_v2" if form == "v2" else "gptq",
            }
            write(f"gptq_{bits}_{form}", stored, values, None if symmetric else config)


def pack_gptq(text, values, bits, scales, zeros, groups):
    """Let the library's own `pack` write the words; version 2 leaves out its line `zeros -= 1`."""
    start = text.index("    def pack(self")
    end = text.index("    def forward(self")
    space = {
        "torch": torch,
        "np": np,
        "nn": torch.nn,
        "transformers": types.SimpleNamespace(pytorch_utils=types.SimpleNamespace(Conv1D=type(None))),
    }
    exec("class Packer:\n" + text[start:end], space)
    layer = space["Packer"]()
    layer.bits, layer.infeatures, layer.outfeatures, layer.g_idx = bits, IN, 32, groups.int()
    linear = torch.nn.Linear(IN, 32, bias=False)
    linear.weight.data = values
    layer.pack(linear, scales, zeros, groups.int())
    return layer


def awq():
    packing = module(find("awq/utils/packing_utils.py"), "packing_utils")
    generator = torch.Generator().manual_seed(9)
    words = torch.randint(-(1 << 31), (1 << 31) - 1, (IN, 4), generator=generator).int()
    zeros = torch.randint(-(1 << 31), (1 << 31) - 1, (IN // 16, 4), generator=generator).int()
    scales = (torch.rand(IN // 16, 32, generator=generator) + 0.5).half()
    values = packing.dequantize_gemm(words, zeros, scales.float(), 4, 16).T
    stored = {"layer.qweight": words, "layer.qzeros": zeros, "layer.scales": scales}
    config = {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "zero_point": True}
    write("awq", stored, values, config)


if __name__ == "__main__":
    for make in (bitsandbytes, compressed_tensors, hqq, gptq, awq):
        make()
    found = {name: version(name) for name in ("bitsandbytes", "compressed-tensors", "hqq", "torch")}
    text = json.dumps({**found, "auto-gptq": "0.7.1", "autoawq": "0.2.9"}, indent=2)
    (HERE / "versions.json").write_text(text + "\n")
