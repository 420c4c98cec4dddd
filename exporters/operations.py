"""The operations that are known: one entry for each says what it is, and all rooms derive their sets from it.

What an operation does to units, positions or channels is written once for a kind of operations, in the room
that asks; which operations are of that kind, which of their inputs are weights, vectors or codes, and which
only say where, is written here and nowhere else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"
LSTM, GRU, RNN = "LSTM", "GRU", "RNN"
"""The recurrent operations, for code that says what each of them does."""
ADD, SUB, MUL, IDENTITY, GATHER = "Add", "Sub", "Mul", "Identity", "Gather"
RELU, SIGMOID, TANH = "Relu", "Sigmoid", "Tanh"
"""Operations for code that writes nodes."""


class Kind(StrEnum):
    """What an operation does, as far as some room tells it from others."""

    UNKNOWN = auto()
    # same element of each input
    IDENTITY = auto()
    CAST = auto()
    CAST_LIKE = auto()
    DROPOUT = auto()
    NEGATION = auto()
    ACTIVATION = auto()
    SLOPED = auto()  # an activation whose slope is a parameter
    SUM = auto()
    DIFFERENCE = auto()
    MEAN = auto()
    PRODUCT = auto()
    QUOTIENT = auto()
    BENT = auto()  # nonlinear in each operand
    COMPARISON = auto()
    CHOICE = auto()
    SCALER = auto()  # with numbers that are attributes
    DEQUANTIZE = auto()
    QUANTIZE = auto()
    ONE_HOT = auto()
    # elements elsewhere
    RESHAPE = auto()
    UNIT_AXES = auto()  # axes of length 1 come or go
    TRANSPOSE = auto()
    SPLIT = auto()
    CONCAT = auto()
    SLICE = auto()
    PAD = auto()
    REARRANGE = auto()
    GATHER = auto()  # along one axis
    PICK = auto()  # element by element
    SCATTER = auto()
    TOP = auto()  # the largest
    SEQUENCE = auto()
    # which, where, how many
    SHAPE = auto()
    ARGUMENT = auto()  # where the largest or smallest is
    CONTROL = auto()
    # sums over features
    MATMUL = auto()
    GEMM = auto()
    EINSUM = auto()
    CONVOLUTION = auto()
    CONV_TRANSPOSE = auto()
    DEFORMED = auto()  # a convolution whose taps move
    TRANSFORM = auto()  # of Fourier
    RECURRENT = auto()
    ATTENTION = auto()
    ROTARY = auto()
    # over positions, channels or groups
    BATCH_NORM = auto()
    INSTANCE_NORM = auto()
    LAYER_NORM = auto()
    GROUP_NORM = auto()
    SOFTMAX = auto()
    OTHER_NORM = auto()
    REDUCTION = auto()
    RUNNING = auto()
    POOL = auto()
    GLOBAL_POOL = auto()
    REGION_POOL = auto()
    RESIZE = auto()
    SAMPLING = auto()
    # several plain operations in one
    QUANTIZED = auto()
    ON_CODES = auto()  # of onnxruntime, by the inputs of the plain operation and their scales
    FUSED = auto()
    EMBED = auto()  # tables that are looked up, summed and normalised
    EXPERTS = auto()
    BRANCH = auto()
    LOOP = auto()


COPYING = frozenset({Kind.IDENTITY, Kind.CAST, Kind.CAST_LIKE})
"""Each element of the output is that of input 0, perhaps of another type."""
KEEPING = COPYING | {Kind.RESHAPE, Kind.UNIT_AXES, Kind.TRANSPOSE}
"""Each element of the output is one of input 0, each once."""
PICKING = frozenset({Kind.GATHER, Kind.PICK})
"""Each element of the output is one of input 0, whatever the index is."""
VIEWING = KEEPING | PICKING | {Kind.SLICE, Kind.SPLIT}
"""Each element of the output is one of input 0."""
MOVING = VIEWING - COPYING | {Kind.CONCAT, Kind.PAD, Kind.REARRANGE}
"""Each element of the output is one of an input, or filled in."""
NORMS = frozenset(
    {Kind.BATCH_NORM, Kind.INSTANCE_NORM, Kind.LAYER_NORM, Kind.GROUP_NORM, Kind.SOFTMAX, Kind.OTHER_NORM}
)
UNARY = COPYING | {Kind.DROPOUT, Kind.NEGATION, Kind.ACTIVATION, Kind.SLOPED}
"""Element by element, of input 0; what else there is are settings."""
ARITHMETIC = frozenset({Kind.SUM, Kind.DIFFERENCE, Kind.MEAN, Kind.PRODUCT, Kind.QUOTIENT, Kind.BENT})
POINTWISE = UNARY - {Kind.CAST_LIKE} | ARITHMETIC | {Kind.COMPARISON, Kind.CHOICE}
"""An element of the output depends on the same element of each input, inputs broadcast."""
LINEAR = NORMS - {Kind.SOFTMAX} | UNARY - {Kind.ACTIVATION, Kind.SLOPED}
"""Operations on one activation that leave it as it is, up to scales and shifts."""
DENSE = frozenset({Kind.MATMUL, Kind.GEMM})
CONVOLUTIONS = frozenset({Kind.CONVOLUTION, Kind.CONV_TRANSPOSE})
CONTRACTING = DENSE | CONVOLUTIONS | {Kind.EINSUM, Kind.RECURRENT}
"""Plain operations that sum over features, with weights or not."""


@dataclass(frozen=True)
class Codes:
    """How an input of stored integers is read: (code - zero) * scale."""

    scale: int | None
    """Input that holds the scale; None where the operation leaves it to another one."""
    zero: int
    axis: int = -1
    """Axis that scales and zero points run along; the attribute `axis` overrides it."""
    packed: bool = False
    """Whether an element holds several codes."""


@dataclass(frozen=True, kw_only=True)
class OpSpec:
    """What is known about one operation."""

    name: str
    domain: str = ""
    kind: Kind
    weights: Mapping[int, tuple[int, ...] | None] = field(default_factory=dict)
    """Inputs that are weights where they are constants -> the axes that count filters; None where those
    depend on attributes or ranks."""
    vectors: tuple[int, ...] = ()
    """Inputs that are biases, scales and shifts where they are constants. Running means and variances are
    statistics, not parameters."""
    steering: tuple[int, ...] = ()
    """Inputs that say which or where."""
    codes: Mapping[int, Codes] = field(default_factory=dict)
    """Inputs that are stored integers."""
    codes_out: int | None = None
    """The input that holds the scale of the codes that it makes; the zero point follows it."""
    sizes: int | None = None
    """The input whose values are the sizes of what it makes, or factors of them."""
    plain: str = ""
    """The standard's operation that a fused or quantized one stands for."""
    is_linear: bool = False
    """Of reductions and pools: a weighted sum."""
    is_random: bool = False
    """Its values are drawn: they differ from run to run, and follow from nothing."""
    keeps_value: bool = False
    """Of one and the same value everywhere it makes that value."""
    keeps_zero: bool = False
    """Of zeros it makes zeros."""

    @property
    def title(self) -> str:
        """Name, with the domain if that is not the standard one."""
        return f"{self.domain}::{self.name}" if self.domain else self.name

    @property
    def plain_kind(self) -> Kind:
        """Kind of the plain operation that it is or stands for."""
        return OPERATIONS["", self.plain].kind if self.plain else self.kind

    @property
    def scales(self) -> tuple[int, ...]:
        """Inputs that are scales of codes."""
        found = {codes.scale for codes in self.codes.values()} | {self.codes_out}
        return tuple(sorted(position for position in found if position is not None))


def _of(kind: Kind, names: str, **facts: object) -> Iterator[OpSpec]:
    """Entries of one kind; names separated by spaces, with `domain::` where that is not the standard's."""
    for title in names.split():
        domain, _, name = title.rpartition("::")
        yield OpSpec(name=name, domain=domain, kind=kind, **facts)  # type: ignore[arg-type]


def _pointwise() -> Iterator[OpSpec]:
    yield from _of(Kind.IDENTITY, "Identity", keeps_value=True)
    yield from _of(Kind.CAST, "Cast", keeps_value=True)
    yield from _of(Kind.CAST_LIKE, "CastLike", keeps_value=True)
    yield from _of(Kind.DROPOUT, "Dropout", keeps_value=True)
    yield from _of(Kind.NEGATION, "Neg", keeps_zero=True)
    yield from _of(
        Kind.ACTIVATION,
        "Abs Acos Acosh Asin Asinh Atan Atanh BitCast BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor "
        "Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Mish Not Reciprocal Relu Round Selu Shrink "
        "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
    )
    yield from _of(Kind.SLOPED, "PRelu", vectors=(1,))
    yield from _of(Kind.SUM, "Add", vectors=(0, 1))
    yield from _of(Kind.SUM, "Sum")
    yield from _of(Kind.DIFFERENCE, "Sub", vectors=(0, 1))
    yield from _of(Kind.MEAN, "Mean")
    yield from _of(Kind.PRODUCT, "Mul", vectors=(0, 1))
    yield from _of(Kind.QUOTIENT, "Div", vectors=(1,))
    yield from _of(Kind.BENT, "Pow Mod Max Min And Or Xor BitwiseAnd BitwiseOr BitwiseXor BitShift")
    yield from _of(Kind.COMPARISON, "Equal Greater GreaterOrEqual Less LessOrEqual")
    yield from _of(Kind.CHOICE, "Where")
    yield from _of(Kind.SCALER, "ai.onnx.ml::Scaler")
    coded = {0: Codes(1, 2, axis=1)}
    yield from _of(Kind.DEQUANTIZE, "DequantizeLinear com.microsoft::DequantizeLinear", codes=coded)
    yield from _of(Kind.QUANTIZE, "QuantizeLinear com.microsoft::QuantizeLinear", codes_out=1)
    yield from _of(Kind.ONE_HOT, "OneHot", sizes=1)


def _movement() -> Iterator[OpSpec]:
    yield from _of(Kind.RESHAPE, "Reshape", keeps_value=True, sizes=1)
    yield from _of(Kind.RESHAPE, "Flatten", keeps_value=True)
    yield from _of(Kind.UNIT_AXES, "Squeeze Unsqueeze", keeps_value=True)
    yield from _of(Kind.TRANSPOSE, "Transpose", keeps_value=True)
    yield from _of(Kind.SPLIT, "Split", keeps_value=True)
    yield from _of(Kind.CONCAT, "Concat", keeps_value=True)
    yield from _of(Kind.SLICE, "Slice", keeps_value=True, steering=(1, 2, 3, 4))
    yield from _of(Kind.PAD, "Pad")
    yield from _of(Kind.REARRANGE, "Expand Tile", sizes=1)
    yield from _of(Kind.REARRANGE, "DepthToSpace SpaceToDepth Trilu CenterCropPad")
    yield from _of(Kind.REARRANGE, "Compress ReverseSequence", steering=(1,))
    yield from _of(Kind.GATHER, "Gather", keeps_value=True, weights={0: (0,)}, steering=(1,))
    yield from _of(Kind.PICK, "GatherElements GatherND", keeps_value=True, steering=(1,))
    yield from _of(Kind.SCATTER, "ScatterND ScatterElements Scatter", steering=(1,))
    yield from _of(Kind.SCATTER, "TensorScatter", steering=(2,))
    yield from _of(Kind.TOP, "TopK")
    yield from _of(
        Kind.SEQUENCE,
        "SequenceConstruct SequenceEmpty SplitToSequence SequenceInsert SequenceErase SequenceAt "
        "SequenceLength ConcatFromSequence",
    )
    yield from _of(Kind.SHAPE, "Shape Size")
    yield from _of(Kind.ARGUMENT, "ArgMax ArgMin")
    yield from _of(
        Kind.CONTROL,
        "NonZero NonMaxSuppression Unique EyeLike Range HannWindow HammingWindow BlackmanWindow",
    )
    yield from _of(Kind.CONTROL, "ConstantOfShape", sizes=0)
    yield from _of(
        Kind.CONTROL,
        "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli",
        is_random=True,
    )


def _contractions() -> Iterator[OpSpec]:
    both: Mapping[int, None] = {0: None, 1: None}
    yield from _of(Kind.MATMUL, "MatMul", weights=both)
    yield from _of(Kind.GEMM, "Gemm", weights=both, vectors=(2,))
    yield from _of(Kind.EINSUM, "Einsum", weights=both)
    yield from _of(Kind.CONVOLUTION, "Conv", weights={1: (0,)}, vectors=(2,))
    yield from _of(Kind.CONV_TRANSPOSE, "ConvTranspose", weights={1: (1,)}, vectors=(2,))
    yield from _of(Kind.DEFORMED, "DeformConv", plain="Conv", weights={1: (0,)}, vectors=(3,))
    yield from _of(Kind.TRANSFORM, "DFT STFT")
    gates = {1: (0, 1), 2: (0, 1)}
    yield from _of(Kind.RECURRENT, "LSTM", weights=gates, vectors=(3, 7))
    yield from _of(Kind.RECURRENT, "GRU RNN", weights=gates, vectors=(3,))
    yield from _of(
        Kind.ATTENTION,
        "Attention LinearAttention com.microsoft::Attention com.microsoft::GroupQueryAttention "
        "com.microsoft::MultiHeadAttention com.microsoft::LinearAttention",
    )
    yield from _of(Kind.ROTARY, "RotaryEmbedding com.microsoft::RotaryEmbedding")


def _over_axes() -> Iterator[OpSpec]:
    scale_and_shift = (1, 2)
    yield from _of(Kind.BATCH_NORM, "BatchNormalization", vectors=scale_and_shift)
    yield from _of(Kind.INSTANCE_NORM, "InstanceNormalization", vectors=scale_and_shift)
    yield from _of(
        Kind.LAYER_NORM, "LayerNormalization com.microsoft::LayerNormalization", vectors=scale_and_shift
    )
    yield from _of(
        Kind.LAYER_NORM,
        "RMSNormalization SimplifiedLayerNormalization com.microsoft::SimplifiedLayerNormalization",
        vectors=(1,),
    )
    yield from _of(Kind.GROUP_NORM, "GroupNormalization", vectors=scale_and_shift)
    yield from _of(Kind.SOFTMAX, "Softmax LogSoftmax Hardmax")
    yield from _of(Kind.OTHER_NORM, "LpNormalization MeanVarianceNormalization LRN")
    yield from _of(Kind.REDUCTION, "ReduceMean", is_linear=True, keeps_value=True)
    yield from _of(Kind.REDUCTION, "ReduceMax ReduceMin", keeps_value=True)
    yield from _of(Kind.REDUCTION, "ReduceSum", is_linear=True, keeps_zero=True)
    yield from _of(Kind.REDUCTION, "ReduceL1 ReduceL2 ReduceSumSquare ReduceProd", keeps_zero=True)
    yield from _of(Kind.REDUCTION, "ReduceLogSum ReduceLogSumExp")
    yield from _of(Kind.RUNNING, "CumSum CumProd")
    yield from _of(Kind.POOL, "MaxPool", keeps_value=True)
    yield from _of(Kind.POOL, "AveragePool", is_linear=True, keeps_zero=True)
    yield from _of(Kind.POOL, "LpPool", keeps_zero=True)
    yield from _of(Kind.GLOBAL_POOL, "GlobalMaxPool", keeps_value=True)
    yield from _of(Kind.GLOBAL_POOL, "GlobalAveragePool", is_linear=True, keeps_value=True)
    yield from _of(Kind.GLOBAL_POOL, "GlobalLpPool", keeps_zero=True)
    yield from _of(Kind.REGION_POOL, "MaxRoiPool MaxUnpool")
    yield from _of(Kind.RESIZE, "Resize Upsample", keeps_zero=True)
    yield from _of(Kind.SAMPLING, "GridSample RoiAlign AffineGrid Col2Im")


def _quantized() -> Iterator[OpSpec]:
    one, two, choice = {0: Codes(1, 2)}, {0: Codes(1, 2), 3: Codes(4, 5)}, {1: Codes(2, 3), 4: Codes(5, 6)}
    yield from _on_codes(Kind.ON_CODES, "Add Mul", two, 6)
    yield from _on_codes(Kind.ON_CODES, "Sigmoid LeakyRelu Softmax AveragePool GlobalAveragePool", one, 3)
    yield from _on_codes(Kind.ON_CODES, "Where", choice, 7)
    yield from _on_codes(Kind.QUANTIZED, "Concat", {}, 0)
    yield from _coded("DynamicQuantizeLinear", "", {}, {})
    left, right = Codes(1, 2, axis=-2), Codes(4, 5)
    yield from _coded("QLinearMatMul", "MatMul", {0: None, 3: None}, {0: left, 3: right}, codes_out=6)
    filters = Codes(4, 5, axis=0)
    yield from _coded("QLinearConv", "Conv", {3: (0,)}, {0: Codes(1, 2), 3: filters}, codes_out=6)
    left, right = Codes(None, 2, axis=-2), Codes(None, 3)
    yield from _coded("MatMulInteger", "MatMul", {0: None, 1: None}, {0: left, 1: right})
    filters = Codes(None, 3, axis=0)
    yield from _coded("ConvInteger", "Conv", {1: (0,)}, {0: Codes(None, 2), 1: filters})
    columns = {0: Codes(1, 2), 3: Codes(4, 5, axis=1)}
    yield from _coded("com.microsoft::QGemm", "Gemm", {3: None}, columns, codes_out=7)
    both = {0: Codes(2, 4), 1: Codes(3, 5)}
    yield from _coded("com.microsoft::MatMulIntegerToFloat", "MatMul", {1: None}, both, vectors=(6,))
    right_alone = {1: Codes(2, 3)}
    yield from _coded("com.microsoft::DynamicQuantizeMatMul", "MatMul", {1: None}, right_alone, vectors=(4,))
    yield from _coded("com.microsoft::QAttention", "Attention", {}, {0: Codes(3, 6), 1: Codes(4, 7)})
    directions = {1: Codes(8, 9, axis=0), 2: Codes(10, 11, axis=0)}
    yield from _coded("com.microsoft::DynamicQuantizeLSTM", "LSTM", {1: None, 2: None}, directions)
    in_blocks = Codes(2, 3, packed=True)
    yield from _coded("com.microsoft::MatMulNBits", "MatMul", {1: None}, {1: in_blocks})
    yield from _coded("com.microsoft::MatMulBnb4", "MatMul", {1: None}, {})
    yield from _coded("com.microsoft::GatherBlockQuantized", "Gather", {}, {0: in_blocks}, steering=(1,))


def _on_codes(kind: Kind, plain: str, codes: Mapping[int, Codes], codes_out: int) -> Iterator[OpSpec]:
    """Operations of onnxruntime on codes, by the plain ones that they stand for."""
    for name in plain.split():
        title = f"{MICROSOFT}::QLinear{name}"
        yield from _of(kind, title, plain=name, codes=codes, codes_out=codes_out)


def _coded(
    title: str,
    plain: str,
    weights: Mapping[int, tuple[int, ...] | None],
    codes: Mapping[int, Codes],
    *,
    codes_out: int | None = None,
    **facts: tuple[int, ...],
) -> Iterator[OpSpec]:
    known = {"plain": plain, "weights": weights, "codes": codes, "codes_out": codes_out}
    yield from _of(Kind.QUANTIZED, title, **known, **facts)


def _fused() -> Iterator[OpSpec]:
    both: Mapping[int, None] = {0: None, 1: None}
    yield from _of(Kind.FUSED, "com.microsoft::FusedConv", plain="Conv", weights={1: (0,)}, vectors=(2,))
    yield from _of(Kind.FUSED, "com.microsoft::FusedGemm", plain="Gemm", weights=both, vectors=(2,))
    yield from _of(
        Kind.FUSED, "com.microsoft::FusedMatMul com.microsoft::TransposeMatMul", plain="MatMul", weights=both
    )
    yield from _of(Kind.FUSED, "com.microsoft::BiasGelu com.microsoft::FastGelu", plain="Gelu", vectors=(1,))
    yield from _of(Kind.FUSED, "com.microsoft::BiasAdd", plain="Add", vectors=(1,))
    yield from _of(Kind.FUSED, "com.microsoft::BiasSplitGelu", plain="Gelu", vectors=(1,))
    yield from _of(Kind.FUSED, "com.microsoft::QuickGelu com.microsoft::Gelu", plain="Gelu")
    yield from _of(
        Kind.FUSED, "com.microsoft::SkipLayerNormalization", plain="LayerNormalization", vectors=(2, 3, 4)
    )
    yield from _of(
        Kind.FUSED,
        "com.microsoft::SkipSimplifiedLayerNormalization",
        plain="RMSNormalization",
        vectors=(2, 3),
    )
    yield from _of(Kind.EMBED, "com.microsoft::EmbedLayerNormalization", vectors=(5, 6))
    yield from _of(Kind.EXPERTS, "com.microsoft::MoE com.microsoft::QMoE")
    yield from _of(Kind.UNKNOWN, "Det CausalConvWithState")
    yield from _of(
        Kind.UNKNOWN,
        "ai.onnx.ml::TreeEnsemble ai.onnx.ml::TreeEnsembleClassifier ai.onnx.ml::TreeEnsembleRegressor",
    )
    yield from _of(Kind.BRANCH, "If")
    yield from _of(Kind.LOOP, "Loop Scan")


def _table() -> Mapping[tuple[str, str], OpSpec]:
    found: dict[tuple[str, str], OpSpec] = {}
    for part in (_pointwise, _movement, _contractions, _over_axes, _quantized, _fused):
        for spec in part():
            if found.setdefault((spec.domain, spec.name), spec) is not spec:
                raise ValueError(f"{spec.title} has two entries")
    return found


OPERATIONS: Mapping[tuple[str, str], OpSpec] = _table()
"""By domain and name."""
UNKNOWN = OpSpec(name="", kind=Kind.UNKNOWN)
"""What is known about an operation that is not in the table."""


def normal_domain(domain: str) -> str:
    """A domain with the two spellings of the standard one, "" and "ai.onnx", made the same."""
    return "" if domain == "ai.onnx" else domain


def spec_of(node: "onnx.NodeProto") -> OpSpec:
    """What is known about the operation of a node."""
    return OPERATIONS.get((normal_domain(node.domain), node.op_type), UNKNOWN)


def kind_of(node: "onnx.NodeProto") -> Kind:
    """The kind of the operation of a node."""
    return spec_of(node).kind


def kind_named(title: str) -> Kind:
    """The kind of an operation by its name, with the domain if that is not the standard one."""
    domain, _, name = title.rpartition("::")
    return OPERATIONS.get((domain, name), UNKNOWN).kind


def operations(*kinds: Kind) -> tuple[OpSpec, ...]:
    """The operations of some kinds, in the order of the table."""
    return tuple(spec for spec in OPERATIONS.values() if spec.kind in kinds)
