"""`docs/operations.md`, made from the table of operations and the tracing rules."""

from collections.abc import Iterable
from inspect import getdoc

import emergraph.exporters.tracing.rules  # noqa: F401 - importing it registers the rules
from emergraph.exporters.operations import OPERATIONS, OpSpec
from emergraph.exporters.tracing.context import Rule, registered_rules

_INTRODUCTION = """# Operations

Which ONNX operations are understood, and how each maps units to units and edges. An operation that is not
listed, or that a model uses in a way its rule does not know, becomes `opaque` edges without weights and a row
in the table `operations` that says why; the export's summary names it.

The column "inputs" numbers, from 0, the inputs that are weights or vectors (biases, scales, shifts) where
they are constants, those that only say which, where or how large, and those that hold codes with their scale
and zero point. Pruning, landscapes, position counts and checks of files read the same table,
`exporters/operations.py`.

Whatever depends on constants and shapes alone is folded and needs no rule. What depends on the inputs and
only decides which or where (indices, lengths, masks) is control and carries no units.
"""

_LIMITS = """## Where the graph is coarser than the model

- A unit is a whole channel or feature, at all positions: that a position cannot see another one (a causal
  mask, the border of a padded image), or carries less than the others (a class token), is not in the graph.
- `norm` edges form cycles (a unit moves its group's statistic, which moves the unit); path counts leave them
  out unless asked.
- Regions (`RoiAlign`, `Resize` with a region) and rotary angles are control, even where activations
  made them.
- The scale that a dynamic quantization takes from its data counts as a constant.
- Of operations without a rule, these have weights of their own or carry many units and are opaque:
  {opaque}.
- The running matrix of linear attention counts as one unit per value feature, whatever the key feature.
- The peephole of an LSTM's output gate reads the present cell and is `recurrent` all the same.
"""

_FAMILIES = {
    "movement": "Data movement: the operation itself runs on the labels",
    "scatter": "Values into places: sums over neighbours, segments, caches",
    "sequences": "Sequences of tensors",
    "elementwise": "Element by element, comparisons, one-hot codes",
    "contraction": "Contractions",
    "einsum": "Einsum",
    "convolution": "Convolutions",
    "fourier": "Fourier transforms: linear, with the weights that the operation defines",
    "recurrent": "Recurrent layers, expanded into their gates",
    "embedding": "Embeddings",
    "heads": "Attention, plain and linear",
    "normalisation": "Normalisations: the group's statistic is a `norm` hub",
    "reduction": "Reductions",
    "pooling": "Pooling and resampling",
    "quantized": "Quantized operations, traced as the plain ones on the floats that codes stand for",
    "fused": "Fused operations of onnxruntime, traced as the plain ones they stand for",
    "controlflow": "Control flow",
}


def operations_page() -> str:
    """Return the page as Markdown: a table per family of rules, operations in alphabetical order."""
    lines = [_INTRODUCTION]
    families = {_family(rule) for rule in registered_rules().values()}
    for family in (*_FAMILIES, *sorted(families - set(_FAMILIES))):
        if family in families:
            lines += [
                f"## {_FAMILIES.get(family, family)}\n",
                "| operation | inputs | how |",
                "|---|---|---|",
            ]
            lines += [*_rows(family), ""]
    opaque = [f"`{spec.title}`" for key, spec in OPERATIONS.items() if key not in registered_rules()]
    return "\n".join([*lines, _LIMITS.format(opaque=", ".join(sorted(opaque)))])


def _rows(family: str) -> list[str]:
    named: dict[tuple[Rule, str], list[str]] = {}
    for (domain, op), rule in sorted(registered_rules().items(), key=lambda item: (item[0][1], item[0][0])):
        if _family(rule) == family:
            spec = OPERATIONS[domain, op]
            named.setdefault((rule, _inputs(spec)), []).append(f"`{spec.title}`")
    return [f"| {', '.join(names)} | {inputs} | {_how(rule)} |" for (rule, inputs), names in named.items()]


def _inputs(spec: OpSpec) -> str:
    """What the table says about an operation's inputs, as a cell."""
    coded = [
        f"codes {at} ({'' if codes.scale is None else f'scale {codes.scale}, '}zero {codes.zero})"
        for at, codes in spec.codes.items()
    ]
    sizes = () if spec.sizes is None else (spec.sizes,)
    told = [("weights", spec.weights), ("vectors", spec.vectors), ("where", spec.steering), ("sizes", sizes)]
    return "; ".join([*(f"{what} {_listed(at)}" for what, at in told if at), *coded])


def _listed(positions: Iterable[int]) -> str:
    return ", ".join(map(str, positions))


def _family(rule: Rule) -> str:
    return rule.__module__.rsplit(".", 1)[-1]


def _how(rule: Rule) -> str:
    """The first line of a rule's docstring, as a cell."""
    return (getdoc(rule) or "").partition("\n")[0].replace("|", "\\|")


__all__ = ["operations_page"]
