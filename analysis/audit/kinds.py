"""The fixed table of what an audit can find: severity, grade, what it means and what to do.

`docs/audit.md` has its table from here. Severities are those of `check`: an error is something with which
the model should not be used, a warning something that a person should look at, an info something worth
knowing or a saving. The grade says how sure a finding of the kind is at best: where an audit ran on made-up
inputs, what would be tested is only suspected.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from emergraph.exporters.onnxfile.findings import KINDS, Severity


class Grade(StrEnum):
    """How sure a finding is."""

    PROVED = "proved"
    """Follows from structure and weights, for every input."""
    TESTED = "tested"
    """Held on the inputs given, within the bound that the finding states."""
    SUSPECTED = "suspected"
    """A sign that a person should look at."""


class About(StrEnum):
    """What a finding is about."""

    NETWORK = "network"
    """The function with its units: the same in every file that holds the network."""
    ENCODING = "encoding"
    """How this file writes the network down."""


class Section(StrEnum):
    """The questions of an audit, in the order in which they are asked."""

    FILE = "file"
    DEAD = "dead and unread"
    NUMBERS = "numbers"
    REDUNDANT = "redundant"
    QUANTIZATION = "quantization"
    SUSPICIOUS = "suspicious"
    PRUNABLE = "prunable"


@dataclass(frozen=True)
class AuditKind:
    """A kind of finding: its stable id, what it means and what to do about it."""

    id: str
    section: Section
    severity: Severity
    grade: Grade
    about: About
    meaning: str
    """One sentence: what was found."""
    action: str
    """One sentence: what to do."""


_WARNING, _INFO = Severity.WARNING, Severity.INFO
_NETWORK, _ENCODING = About.NETWORK, About.ENCODING
_PROVED, _TESTED, _SUSPECTED = Grade.PROVED, Grade.TESTED, Grade.SUSPECTED
_Row = tuple[str, Severity, Grade, About, str, str]

_WRITE = "`emergraph audit MODEL --write SMALLER.onnx`"
_CUT = f"{_WRITE} leaves them out"
_CUT_UNITS = f"{_WRITE} leaves out those whose channels nothing else needs"
_DEAD: tuple[_Row, ...] = (
    (
        *("DEAD-UNREACHED", _WARNING, _PROVED, _NETWORK),
        "No input reaches the units: each has one value, whatever the inputs are.",
        f"Put their values into the biases behind them: {_CUT_UNITS}.",
    ),
    (
        *("DEAD-UNREAD", _WARNING, _PROVED, _NETWORK),
        "No path leads from the units to an output.",
        f"Remove them: {_CUT_UNITS}.",
    ),
    (
        *("DEAD-OUTPUT", _WARNING, _PROVED, _NETWORK),
        "No input reaches the elements of an output: they are constant.",
        "Do not use them; train the model again, or remove them where it is made.",
    ),
    (
        *("DEAD-FLAT-OUTPUT", _WARNING, _TESTED, _NETWORK),
        "The elements of an output did not change over the inputs, although inputs reach them.",
        "Look at the layers in front of the output for silent units, or give other inputs.",
    ),
    (
        *("DEAD-SILENT", _WARNING, _TESTED, _NETWORK),
        "The units had one and the same value on all inputs, at all positions.",
        "Give more inputs; if it stays so: `emergraph audit MODEL --also tested --write SMALLER.onnx`.",
    ),
    (
        *("DEAD-SILENT-RANDOM", _INFO, _SUSPECTED, _NETWORK),
        "The units had one and the same value on random inputs, which may mean nothing to the model.",
        "Give inputs of your own: `emergraph audit MODEL --inputs FILE.npz`.",
    ),
    (
        *("DEAD-INPUT", _INFO, _PROVED, _ENCODING),
        "Nothing that an output depends on reads the input.",
        "Leave it out when the model is exported, or give it any value.",
    ),
    (
        *("DEAD-INITIALIZER", _INFO, _PROVED, _ENCODING),
        "Nothing reads the initializers.",
        f"Remove them: {_CUT}.",
    ),
    (
        *("DEAD-OPERATION", _INFO, _PROVED, _ENCODING),
        "No output depends on what the operations compute.",
        f"Remove them: {_CUT}.",
    ),
    (
        *("DEAD-BRANCH", _INFO, _TESTED, _ENCODING),
        "The model also holds branches that were not taken with these inputs.",
        "Choose with --input NAME=VALUE to see the others; an exporter may leave out what is not used.",
    ),
)

_NUMBERS: tuple[_Row, ...] = (
    (
        *("NUM-NONFINITE", Severity.ERROR, _PROVED, _NETWORK),
        "Weights are NaN or infinite.",
        "Do not use the model: take a snapshot from before training diverged.",
    ),
    (
        *("NUM-NAN-OUTPUT", _WARNING, _TESTED, _NETWORK),
        "An output holds NaN or infinite values.",
        "Do not use the model on such inputs; look at NUM-NONFINITE and NUM-FLOAT16-ACTIVATION.",
    ),
    (
        *("NUM-SUBNORMAL", _INFO, _PROVED, _ENCODING),
        "Weights are so small that some processors round them to zero, and others become slow.",
        "Set them to zero when the model is exported.",
    ),
    (
        *("NUM-LIMIT", _WARNING, _PROVED, _ENCODING),
        "Weights stand at the largest value of their type, where larger ones were cut off.",
        "Export again from wider weights.",
    ),
    (
        *("NUM-FLOAT16-WEIGHT", _INFO, _PROVED, _NETWORK),
        "Weights are beyond the range of float16.",
        "Keep these tensors in float32 or bfloat16 when the model is converted.",
    ),
    (
        *("NUM-FLOAT16-ACTIVATION", _INFO, _TESTED, _ENCODING),
        "Activations are beyond the range of float16 (65504).",
        "Keep these layers in float32 or bfloat16 when the model is converted.",
    ),
    (
        *("NUM-SATURATED", _WARNING, _TESTED, _NETWORK),
        "Sigmoids or tanhs of the units stand at one end of their range on all inputs.",
        "The units carry no information on these inputs: check the scale of the inputs.",
    ),
    (
        *("NUM-DEAD-GATE", _WARNING, _PROVED, _NETWORK),
        "A gate does not depend on what it is given: its weights are all zero.",
        "Remove the gate, or what it closes.",
    ),
    (
        *("NUM-VARIANCE", _WARNING, _PROVED, _ENCODING),
        "Batch variances are zero or far below the epsilon that is added to them.",
        "The channels were constant in training; remove them, or train the layer again.",
    ),
    (
        *("NUM-TRAINING", _WARNING, _PROVED, _ENCODING),
        "Operations are in training mode: the batch or chance decides what they compute.",
        "Export the model in evaluation mode.",
    ),
    (
        *("NUM-RANDOM", _WARNING, _PROVED, _NETWORK),
        "Outputs depend on operations that draw random numbers.",
        "Expect other outputs in every run; export without them where that is not meant.",
    ),
)

_REDUNDANT: tuple[_Row, ...] = (
    (
        *("TWIN-UNITS", _INFO, _PROVED, _NETWORK),
        "Units are the same up to a positive factor: they read the same with the same weights.",
        f"Merge them, adding up what is read from them: {_WRITE} does so where it can.",
    ),
    (
        *("TWIN-LAYERS", _INFO, _PROVED, _NETWORK),
        "Layers have the same weights and biases.",
        "Check that this is meant; a tensor that both use is stored once.",
    ),
    (
        *("STORED-TWICE", _INFO, _PROVED, _ENCODING),
        "Tensors with the same values are stored more than once.",
        f"Store them once: {_WRITE} does so.",
    ),
    (
        *("LINEAR-CHAIN", _INFO, _PROVED, _NETWORK),
        "Layers follow each other with nothing but linear operations between them.",
        f"Fold them into one where that is smaller: {_WRITE} does so for dense layers.",
    ),
    (
        *("IDENTITY-OPERATION", _INFO, _PROVED, _ENCODING),
        "Operations do not change what they are given.",
        f"Remove them: {_CUT}.",
    ),
    (
        *("FOLDABLE-NORM", _INFO, _PROVED, _ENCODING),
        "Batch normalisations directly follow a layer whose weights can take them in.",
        f"Fold them into the weights: {_WRITE} does so.",
    ),
    (
        *("LOW-RANK", _INFO, _TESTED, _NETWORK),
        "A weight matrix has so low a rank that two factors are smaller.",
        "Replace the layer by two, and measure what that does to the outputs.",
    ),
)

_QUANTIZATION: tuple[_Row, ...] = (
    (
        *("QUANT-UNUSED", _INFO, _PROVED, _ENCODING),
        "Quantized weights use few of the codes that their type has.",
        "Choose the scale from the weights' range, or quantize each channel by itself.",
    ),
    (
        *("QUANT-CLIPPED", _WARNING, _PROVED, _ENCODING),
        "Many quantized weights stand at the ends of the codes, where larger ones were cut off.",
        "Choose a larger scale, or quantize each channel by itself.",
    ),
    (
        *("QUANT-ACTIVATION", _WARNING, _TESTED, _ENCODING),
        "Activations were far beyond the range that their codes hold.",
        "Calibrate the scales of activations again, on inputs like these.",
    ),
    (
        *("QUANT-NOISE", _WARNING, _PROVED, _ENCODING),
        "Quantization changed the weights of a layer much, compared with the reference.",
        "Keep the layer in float, or quantize it with more bits.",
    ),
    (
        *("QUANT-SENSITIVE", _INFO, _TESTED, _ENCODING),
        "Rounding the weights of a layer alone changes the outputs by more than 1 % of their norm.",
        "Keep the layer in float, or quantize it with more bits, and compare the outputs again.",
    ),
    (
        *("QUANT-OUTPUT", _INFO, _TESTED, _ENCODING),
        "The outputs differ from those of the reference.",
        "Decide with your own measure whether that is acceptable.",
    ),
)

_SUSPICIOUS: tuple[_Row, ...] = (
    (
        *("ODD-UNIT", _WARNING, _SUSPECTED, _NETWORK),
        "Units have far larger or far more weights than the others of their layer.",
        "Look at what makes the unit respond; an edited or damaged unit looks like this.",
    ),
    (
        *("FAINT-UNIT", _INFO, _PROVED, _NETWORK),
        "The weights into the units are next to nothing beside those of their layer.",
        "Candidates for removal: `emergraph prune STORE --unit unit --criterion l2`.",
    ),
    (
        *("RANK-ONE-UPDATE", _WARNING, _PROVED, _NETWORK),
        "A weight matrix differs from the reference by a matrix of very low rank.",
        "Somebody may have edited a single association: compare the outputs with the reference's.",
    ),
    (
        *("HIDDEN-TEXT", _WARNING, _SUSPECTED, _ENCODING),
        "A tensor holds bytes that read as text.",
        "Look at them before the file is passed on.",
    ),
    (
        *("HIDDEN-FILE", _WARNING, _SUSPECTED, _ENCODING),
        "A tensor holds the beginning of a program or an archive.",
        "Do not use the file before somebody has looked at it.",
    ),
    (
        *("HIDDEN-BITS", _WARNING, _SUSPECTED, _ENCODING),
        "The lowest bits of a tensor's numbers are not those of trained weights.",
        "Look at them before the file is passed on.",
    ),
    (
        *("UNUSED-BULK", _WARNING, _SUSPECTED, _ENCODING),
        "Initializers that nothing reads take a large part of the file.",
        f"Find out what they are before the file is passed on; {_WRITE} leaves them out.",
    ),
)

_PRUNABLE: tuple[_Row, ...] = (
    (
        *("PRUNABLE-WEIGHTS", _INFO, _TESTED, _NETWORK),
        "So many weights can be set to zero before the outputs change by more than the bound.",
        "`emergraph prune STORE --model MODEL --write PRUNED.onnx`, with that level and scope.",
    ),
    (
        *("PRUNABLE-UNITS", _INFO, _TESTED, _NETWORK),
        "So many units can be removed before the outputs change by more than the bound.",
        "`emergraph prune STORE --unit unit --model MODEL --write SMALLER.onnx`, with that level and scope.",
    ),
    (
        *("FRAGILE-LAYERS", _INFO, _TESTED, _NETWORK),
        "These layers change the outputs most when they alone are pruned.",
        "Prune them less than the others.",
    ),
)


def _rows() -> Iterator[AuditKind]:
    tables = {
        Section.DEAD: _DEAD,
        Section.NUMBERS: _NUMBERS,
        Section.REDUNDANT: _REDUNDANT,
        Section.QUANTIZATION: _QUANTIZATION,
        Section.SUSPICIOUS: _SUSPICIOUS,
        Section.PRUNABLE: _PRUNABLE,
    }
    for section, rows in tables.items():
        for id_, severity, grade, about, meaning, action in rows:
            yield AuditKind(id_, section, severity, grade, about, meaning, action)


AUDIT_KINDS: dict[str, AuditKind] = {kind.id: kind for kind in _rows()}
"""Every kind that only an audit finds, by its id."""

SUPERSEDED = frozenset(
    {"ONNX-VALUE-NONFINITE", "ONNX-VALUE-SUBNORMAL", "TENSOR-NONFINITE", "ONNX-OP-TRAINING"}
)
"""What `check` finds and an audit that reads the network says with the units that it is about."""


def kind_of(finding_id: str) -> AuditKind:
    """Return the kind of a finding, also of one of `check`.

    Raises:
        KeyError: There is no such kind.
    """
    if finding_id in AUDIT_KINDS:
        return AUDIT_KINDS[finding_id]
    known = KINDS[finding_id]
    action = "Do not load the file." if known.severity is Severity.ERROR else "See docs/findings.md."
    return AuditKind(
        finding_id, Section.FILE, known.severity, Grade.PROVED, About.ENCODING, known.meaning, action
    )
