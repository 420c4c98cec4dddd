"""From an unpickled checkpoint to named tensors, with what was left out and why."""

import math

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.build import Builder
from emergraph.exporters.weightfiles.collect import Collected, Leaf, Path, collect, strip_wrappers
from emergraph.exporters.weightfiles.globals import refuse_foreign
from emergraph.exporters.weightfiles.numpyobjects import NoData, SparseRef, TensorRef
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.unpickle import Unpickled
from emergraph.exporters.weightfiles.weightfile import Contents, Skipped

_SHARING = 4
"""Times that an object of a checkpoint is met on average, at most: the same dict can stand in two places."""


def add_checkpoint(
    pickled: Unpickled, builder: Builder, contents: Contents, *, below: str = "", quiet: bool = False
) -> None:
    """Add the weights of an unpickled object.

    Args:
        pickled: What `unpickle` gave.
        builder: Checks the tensors against their storages.
        contents: Where everything goes.
        below: Put before every name.
        quiet: Keep plain values and placeholders to oneself: in TorchScript every module is one.

    Raises:
        InvalidInputError, UnsafeInputError: see `collect` and `Builder`.
    """
    found = collect(pickled.root, contents.limits, _SHARING * pickled.opcodes + 1_000)
    if pickled.around and (found.inside or not found.leaves):
        raise refuse_foreign(dict(pickled.around), "pickle")
    wrappers, leaves = strip_wrappers(found.leaves)
    room = contents.limits.pickle_bytes
    for path, leaf in leaves.items():
        room -= sum(map(len, path))
        if room < 0:
            raise refusal("PICKLE-BOMB", "the names of the tensors are longer than the pickle may be")
        builder.add(".".join((below, *path)) if below else ".".join(path) or "tensor", leaf)
    add_built(builder, contents)
    _report_left_out(found, contents)
    if not quiet:
        contents.metadata.update(found.metadata)
        if wrappers:
            contents.metadata["weights under"] = ".".join(printable(key) for key in wrappers)
        _report_opaque(found, contents)
        _report_named(pickled, found, contents)
        _report_several(leaves, contents)


def add_built(builder: Builder, contents: Contents) -> None:
    """Take over the tensors that a builder has checked.

    Raises:
        InvalidInputError, UnsafeInputError, LimitError: see `Builder.finish` and `Contents.add_tensor`.
    """
    builder.finish()
    for tensor in builder.tensors.values():
        contents.add_tensor(tensor)
    contents.skipped.extend(builder.skipped)
    contents.findings.extend(builder.findings)


def _report_left_out(found: Collected, contents: Contents) -> None:
    for path, leaves in found.left_out.items():
        name, count = ".".join(path), sum(_elements(leaf) for leaf in leaves)
        reason = "state of the optimizer, of a schedule or of random numbers: no weights"
        contents.skipped.append(Skipped(name=name, reason=reason, n_tensors=len(leaves), n_elements=count))
        message = f"{len(leaves)} tensors were left out: {reason}"
        contents.findings.append(Finding("WEIGHTS-SKIPPED", message, printable(name)))


def _report_opaque(found: Collected, contents: Contents) -> None:
    for type_name, paths in found.opaque.items():
        places = "once" if len(paths) == 1 else f"{len(paths)} times"
        reason = (
            f"object of the class {printable(type_name)} from elsewhere ({places}); nothing of it was run"
        )
        name = ".".join(paths[0])
        contents.skipped.append(Skipped(name=name, reason=reason))
        contents.findings.append(Finding("PICKLE-SKIPPED", reason, printable(name)))


def _report_named(pickled: Unpickled, found: Collected, contents: Contents) -> None:
    """Classes from elsewhere of which no object was met: values of a configuration, keys."""
    for key in pickled.around:
        if key.replace(" ", ".") not in found.opaque:
            reason = (
                f"the class {printable(key.replace(' ', '.'))} from elsewhere is named; nothing of it was run"
            )
            contents.skipped.append(Skipped(name="", reason=reason))
            contents.findings.append(Finding("PICKLE-SKIPPED", reason))


def _report_several(leaves: dict[Path, Leaf], contents: Contents) -> None:
    groups = {path[0]: None for path in leaves if len(path) > 1}
    if len(groups) > 1 and all(len(path) > 1 for path in leaves):
        listed = ", ".join(printable(group) for group in list(groups)[:5])
        contents.findings.append(Finding("WEIGHTS-SEVERAL", f"{len(groups)} sets of weights: {listed}"))


def _elements(leaf: Leaf) -> int:
    shape = leaf.shape if isinstance(leaf, (TensorRef, SparseRef, NoData)) else leaf.array().shape
    return math.prod(shape) if min(shape, default=0) >= 0 else 0
