"""What is made of a network: derivations whose relation to it is known."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from lineagenets.nets import Architecture, Dense, save, save_otherwise, train

Place = tuple[str, int, int]
"""Name of a parameter, an axis of it, and how many of its entries in a row are one unit."""
State = dict[str, Tensor]


def symmetries(name: str, net: nn.Module) -> Mapping[str, Sequence[Place]]:
    """Return the groups of hidden units of a net that may be renumbered, and where their weights are."""
    if name == "mlp":
        return {
            f"hidden{i}": [(f"{2 * i}.weight", 0, 1), (f"{2 * i}.bias", 0, 1), (f"{2 * i + 2}.weight", 1, 1)]
            for i in range(len([one for one in net if isinstance(one, nn.Linear)]) - 1)  # type: ignore[arg-type]
        }
    return {"cnn": _conv, "lstm": _recurrent, "encoder": _stream, "decoder": _stream, "unet": _unet}[name](
        net
    )


def _norm(name: str) -> list[Place]:
    return [(f"{name}.{part}", 0, 1) for part in ("weight", "bias", "running_mean", "running_var")]


def _both(name: str, axis: int) -> list[Place]:
    return [(f"{name}.weight", axis, 1), *([(f"{name}.bias", 0, 1)] if axis == 0 else [])]


def _conv(net: nn.Module) -> dict[str, list[Place]]:
    stream = [("stem.weight", 0, 1), *_norm("norm"), ("head.weight", 1, 1)]
    found = {"stream": stream}
    for i in range(len(net.blocks)):  # type: ignore[arg-type]
        at = f"blocks.{i}"
        stream += [(f"{at}.first.weight", 1, 1), (f"{at}.second.weight", 0, 1), *_norm(f"{at}.norm2")]
        found[at] = [(f"{at}.first.weight", 0, 1), *_norm(f"{at}.norm1"), (f"{at}.second.weight", 1, 1)]
    return found


def _recurrent(net: nn.Module) -> dict[str, list[Place]]:
    gates = [(f"cells.{part}_l0", -4, 1) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    second = [*_both("hidden", 0), ("head.weight", 1, 1)]
    after = "hidden" if hasattr(net, "hidden") else "head"
    cells = [*gates, ("cells.weight_hh_l0", 1, 1), (f"{after}.weight", 1, 1)]
    return {"cells": cells, **({"second": second} if after == "hidden" else {})}


def _stream(net: nn.Module) -> dict[str, list[Place]]:
    first = [("symbols.weight", 1, 1)] if hasattr(net, "symbols") else _both("rows", 0)
    stream = [*first, ("places", 1, 1), *_norm("norm")[:2], ("head.weight", 1, 1)]
    found = {"stream": stream}
    for i in range(len(net.blocks)):  # type: ignore[arg-type]
        at = f"blocks.{i}"
        stream += [*_norm(f"{at}.norm1")[:2], *_norm(f"{at}.norm2")[:2]]
        stream += [(f"{at}.attention.{part}.weight", 1, 1) for part in ("query", "key", "value")]
        stream += [*_both(f"{at}.attention.out", 0), *_both(f"{at}.down", 0), (f"{at}.up.weight", 1, 1)]
        heads = [(f"{at}.attention.out.weight", 1, 8)]
        for part in ("query", "key", "value"):
            heads += [(f"{at}.attention.{part}.{kind}", 0, 8) for kind in ("weight", "bias")]
        found[f"{at}.heads"] = heads
        found[f"{at}.inner"] = [*_both(f"{at}.up", 0), (f"{at}.down.weight", 1, 1)]
    return found


def _unet(net: nn.Module) -> dict[str, list[Place]]:
    n = net.enter.weight.shape[0]
    last = "middle" if hasattr(net, "middle") else "down"
    found = {
        "enter": [*_both("enter", 0), ("down.weight", 1, 1), (f"join.weight:{n}:{2 * n}", 1, 1)],
        last: [*_both(last, 0), ("up.weight", 0, 1)],
        "up": [("up.weight", 1, 1), ("up.bias", 0, 1), (f"join.weight:0:{n}", 1, 1)],
        "join": [*_both("join", 0), ("leave.weight", 1, 1)],
    }
    return found | ({"down": [*_both("down", 0), ("middle.weight", 1, 1)]} if last == "middle" else {})


def _part(state: State, name: str) -> Tensor:
    """A parameter, or the slice of its second axis that a name asks for: a view."""
    whole, *ends = name.split(":")
    return state[whole] if not ends else state[whole][:, int(ends[0]) : int(ends[1])]


def permuted(net: nn.Module, kind: Architecture, seed: int) -> nn.Module:
    """Renumber all hidden units: heads whole, a residual stream once."""
    rng = np.random.default_rng([seed, 1])
    state = copy.deepcopy(net.state_dict())
    for places in symmetries(kind.name, net).values():
        name, axis, size = places[0]
        n = _part(state, name).shape[max(axis, 0)] // size // (4 if axis == -4 else 1)
        order = rng.permutation(n)
        for name, axis, size in places:
            part = _part(state, name)
            units = (order[:, None] * size + np.arange(size)).ravel()
            if axis == -4:  # four gates, one behind the other
                units = np.concatenate([order + gate * n for gate in range(4)])
            part.copy_(part.clone().index_select(max(axis, 0), torch.from_numpy(units)))
    return _with(net, state)


POSITIVE = {
    "mlp": ("hidden",),
    "cnn": ("blocks.",),
    "lstm": ("second",),
    "encoder": ("inner",),
    "decoder": ("inner",),
    "unet": ("enter", "down", "middle", "up", "join"),
}
"""Groups whose units pass a ReLU alone: scaled up before it and down after it, they do the same."""


def rescaled(net: nn.Module, kind: Architecture, seed: int) -> nn.Module:
    """Multiply what leads into units and divide what leads out of them."""
    rng = np.random.default_rng([seed, 2])
    state = copy.deepcopy(net.state_dict())
    for group, places in symmetries(kind.name, net).items():
        if not any(part in group for part in POSITIVE[kind.name]):
            continue
        incoming = [one for one in places if not _leads_out(one, group, kind.name)]
        n = _part(state, places[0][0]).shape[places[0][1]]
        factor = torch.from_numpy(np.exp(rng.uniform(-1.5, 1.5, n)).astype(np.float32))
        for place in places:
            if "running" in place[0] or (kind.name == "cnn" and place[0].endswith("first.weight")):
                continue  # a batch norm scales by its own weight and bias
            part = _part(state, place[0])
            shape = [n if a == place[1] else 1 for a in range(part.ndim)]
            part.mul_(factor.reshape(shape) if place in incoming else 1 / factor.reshape(shape))
    return _with(net, state)


def _leads_out(place: Place, group: str, name: str) -> bool:
    if place[0].startswith("up.weight") and name == "unet":
        return group != "up"
    return place[1] == 1


def pruned(net: nn.Module, share: float) -> nn.Module:
    """Set the smallest weights of each tensor to zero."""
    state = copy.deepcopy(net.state_dict())
    for name, values in state.items():
        if values.ndim > 1 and name != "places":
            limit = values.abs().flatten().kthvalue(max(1, int(share * values.numel()))).values
            values[values.abs() <= limit] = 0
    return _with(net, state)


def rounded(net: nn.Module) -> nn.Module:
    """Round the weights of each output to 8 bits, and keep them as floats."""
    state = copy.deepcopy(net.state_dict())
    for values in state.values():
        if values.ndim > 1:
            step = values.flatten(1).abs().amax(1).clamp(min=1e-8) / 127
            step = step.reshape(-1, *[1] * (values.ndim - 1))
            values.copy_(torch.round(values / step) * step)
    return _with(net, state)


def averaged(net: nn.Module, other: nn.Module) -> nn.Module:
    """The mean of two nets' parameters."""
    theirs = other.state_dict()
    state = {n: (v + theirs[n]) / 2 if v.is_floating_point() else v for n, v in net.state_dict().items()}
    return _with(net, state)


def shortened(net: nn.Module, kind: Architecture) -> nn.Module:
    """Leave a hidden layer or a block out."""
    copied = copy.deepcopy(net)
    if isinstance(copied, Dense):
        return nn.Sequential(*list(copied)[:2], *list(copied)[4:]).eval()
    if kind.name == "lstm":
        copied.hidden = nn.Identity()
    elif kind.name == "unet":
        copied.middle = nn.Identity()
    else:
        copied.blocks = copied.blocks[:-1]
    return copied.eval()


CUT = {
    "mlp": ("hidden",),
    "cnn": ("blocks.",),
    "lstm": ("second",),
    "encoder": ("inner",),
    "decoder": ("inner",),
    "unet": ("down", "middle", "join"),
}
"""Groups that a quarter of the units is cut out of: those whose numbers nothing else in the net says."""


def smaller(net: nn.Module, kind: Architecture) -> nn.Module:
    """Cut those units out of groups whose incoming weights are smallest: structured pruning."""
    copied = copy.deepcopy(net)
    state = copied.state_dict()
    for group, places in symmetries(kind.name, net).items():
        if not any(part in group for part in CUT[kind.name]):
            continue
        name, axis, _ = places[0]
        first = state[name].movedim(axis, 0).flatten(1)
        kept = torch.sort(torch.argsort(first.norm(dim=1))[len(first) // 4 :]).values
        for name, axis, _ in places:
            state[name] = state[name].index_select(axis, kept)
    for name, values in state.items():
        owner, _, last = name.rpartition(".")
        part = copied.get_submodule(owner)
        if last in dict(part.named_buffers(recurse=False)):
            part.register_buffer(last, values)
        else:
            setattr(part, last, nn.Parameter(values))
    return copied.eval()


def tuned(net: nn.Module, kind: Architecture, seed: int, *, much: bool) -> nn.Module:
    """Train on with half of the data: 20 small steps, or as long as the net was trained."""
    steps, rate = (kind.steps, kind.rate) if much else (20, 3e-4)
    return train(copy.deepcopy(net), kind, seed=seed + 7000 + much, steps=steps, rate=rate, half=int(much))


def _with(net: nn.Module, state: State) -> nn.Module:
    copied = copy.deepcopy(net)
    copied.load_state_dict(state)
    return copied.eval()


KINDS = {
    "quantized": "quantized",
    "pruned30": "pruned",
    "pruned70": "pruned",
    "tuned-little": "fine-tuned",
    "tuned-lot": "fine-tuned",
    "permuted": "re-encoded",
    "rescaled": "re-encoded",
    "re-exported": "re-encoded",
    "averaged": "averaged",
    "layer-removed": "layers added or cut",
    "units-cut": "pruned",
    "copied": "same",
}
"""Each derivation, and the kind of its relation to the net that it was made of."""


def loaded(kind: Architecture, path: Path) -> nn.Module:
    """Return the net that `save` has written."""
    net = kind.make()
    numbers = {one.name: onnx.numpy_helper.to_array(one).copy() for one in onnx.load(path).graph.initializer}
    state = {name: torch.from_numpy(numbers[name]) for name in net.state_dict() if name in numbers}
    net.load_state_dict(state, strict=False)
    return net.eval()


def write_all(net: nn.Module, kind: Architecture, seed: int, folder: Path) -> None:
    """Write a net and everything that is made of it, as ONNX files; what is there stays."""
    stem = f"{kind.name}-{seed}"
    if not (folder / f"{stem}-quantized.onnx").exists():
        _write_first(net, kind, seed, folder)
    if not (folder / f"{stem}-units-cut.onnx").exists():
        save(smaller(net, kind), kind, folder / f"{stem}-units-cut.onnx")


def _write_first(net: nn.Module, kind: Architecture, seed: int, folder: Path) -> None:
    stem = f"{kind.name}-{seed}"
    much = tuned(net, kind, seed, much=True)
    made: dict[str, Callable[[], nn.Module]] = {
        "base": lambda: net,
        "pruned30": lambda: pruned(net, 0.3),
        "pruned70": lambda: pruned(net, 0.7),
        "tuned-little": lambda: tuned(net, kind, seed, much=False),
        "tuned-lot": lambda: much,
        "permuted": lambda: permuted(net, kind, seed),
        "rescaled": lambda: rescaled(net, kind, seed),
        "averaged": lambda: averaged(net, much),
        "layer-removed": lambda: shortened(net, kind),
        "copied": lambda: net,
    }
    for label, make in made.items():
        save(make(), kind, folder / f"{stem}-{label}.onnx")
    save_otherwise(net, kind, folder / f"{stem}-re-exported.onnx")
    _quantize(net, kind, seed, folder / f"{stem}-quantized.onnx", folder / f"{stem}-base.onnx")


def _quantize(net: nn.Module, kind: Architecture, seed: int, path: Path, base: Path) -> None:
    """8-bit integers with a scale for each output for even seeds, rounded floats for odd ones."""
    if seed % 2:
        save(rounded(net), kind, path)
        return
    model = onnx.load(base)
    for tensor in [one for one in model.graph.initializer if len(one.dims) > 1 and one.name != "places"]:
        values = onnx.numpy_helper.to_array(tensor)
        scale = np.abs(values).reshape(len(values), -1).max(axis=1).clip(1e-8) / 127
        whole = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        parts = {f"{tensor.name}_q": whole, f"{tensor.name}_scale": scale.astype(np.float32)}
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in parts.items())
        node = onnx.helper.make_node("DequantizeLinear", list(parts), [tensor.name], axis=0)
        model.graph.node.insert(0, node)
    onnx.save(model, path)
