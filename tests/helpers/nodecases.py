"""The one-operation models of the onnx package, as models to trace."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from tracedmodel import Array, Feeds


@dataclass(frozen=True)
class NodeCase:
    """A small model with the inputs of its own test."""

    name: str
    model: onnx.ModelProto
    feeds: Feeds
    """By input name."""

    @property
    def op_types(self) -> set[str]:
        """Operations that it is made of."""
        return {n.op_type for n in self.model.graph.node}

    def with_parameters(self, data: set[str]) -> "NodeCase":
        """The same model in which every input outside `data` is an initializer."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        kept = [i for i in model.graph.input if i.name in data]
        fixed = [i.name for i in model.graph.input if i.name not in data and i.name in self.feeds]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.graph.initializer.extend(numpy_helper.from_array(self.feeds[name], name) for name in fixed)
        return NodeCase(self.name, model, {n: a for n, a in self.feeds.items() if n in data})


def _plain(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def node_cases(*, tensors_only: bool = True) -> tuple[NodeCase, ...]:
    """The models of the node tests; those that have other inputs than tensors on request, without feeds."""
    return tuple(case for case, is_plain in _collected() if is_plain or not tensors_only)


@cache
def _collected() -> tuple[tuple[NodeCase, bool], ...]:
    """Each model, and whether its inputs are tensors."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = []
        for case in collect_testcases(None):
            if not case.data_sets or case.model is None:
                continue
            values = case.data_sets[0][0]
            is_plain = all(_plain(v) for v in values)
            names = [i.name for i in case.model.graph.input] if is_plain else []
            feeds = {n: np.asarray(v) for n, v in zip(names, values, strict=False)}
            found.append((NodeCase(case.name, case.model, feeds), is_plain))
    return tuple(found)


def stored_cases() -> Iterator[NodeCase]:
    """The models of one or a few operations that lie as files in the onnx package."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for folder in ("pytorch-operator", "pytorch-converted", "simple"):
        for path in sorted((root / folder).glob("*/model.onnx")):
            model = onnx.load(path)
            feeds = _stored_feeds(path.parent / "test_data_set_0", model)
            if feeds is not None:
                yield NodeCase(path.parent.name, model, feeds)


def light_models() -> Iterator[NodeCase]:
    """The networks of the onnx package, whose weights are made by operations."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for path in sorted(root.glob("*.onnx")):
        yield NodeCase(path.stem, onnx.load(path), {})


def _stored_feeds(folder: Path, model: onnx.ModelProto) -> Feeds | None:
    known = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in known]
    feeds: dict[str, Array] = {}
    for position, name in enumerate(names):
        path = folder / f"input_{position}.pb"
        if not path.exists():
            return None
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        feeds[name] = numpy_helper.to_array(tensor)
    return feeds
