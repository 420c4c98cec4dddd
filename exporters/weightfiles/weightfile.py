"""What reading a weight file gives: tensors by name, what was left out, and what a user should know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.tensors import LazyTensor


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something of the file that was not read as weights."""

    name: str
    """Where it stands: the keys that lead to it, joined by dots; "" for the file as a whole."""
    reason: str
    """Why, and what it is."""
    n_tensors: int = 0
    """Tensors in it."""
    n_elements: int = 0
    """Elements of those tensors."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A weight file, opened and checked; no value has been read yet and nothing of it was run."""

    source: str
    """File name without folders."""
    format: str
    """"state_dict", "torchscript", "exported_program", "safetensors", "gguf", "npz" or "pickle"."""
    digest: Callable[[], str] = field(repr=False)
    """Computes `sha256`, which takes as long as reading all of the file."""
    size: int
    """Bytes, all parts together."""
    tensors: Mapping[str, LazyTensor]
    """Tensors by name, in file order."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Plain values beside the weights: epoch, hyperparameters, `__metadata__`, operations of the code.
    Of a GGUF file its keys with `Value`s."""
    programs: Mapping[str, object] = field(default_factory=dict)
    """Graphs of an exported program as parsed JSON, by record name."""
    files: Mapping[str, memoryview] = field(default_factory=dict, repr=False)
    """The mapped files that the tensors are in, by their names without folders."""
    config: Mapping[str, object] = field(default_factory=dict)
    """Settings that stand beside the file: "quantization_config", "adapter_config"."""
    skipped: Sequence[Skipped] = ()
    findings: Sequence[Finding] = ()

    @cached_property
    def sha256(self) -> str:
        """Of the file; of a sharded one, of the index followed by the digests of the parts by their names."""
        return self.digest()

    @property
    def n_parameters(self) -> int:
        """Elements of all tensors, tied ones counted once."""
        return sum(tensor.n_elements for tensor in self.tensors.values() if tensor.alias_of is None)


@dataclass
class Contents:
    """What a reader has gathered from a file so far."""

    limits: WeightLimits
    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    metadata: dict[str, object] = field(default_factory=dict)
    programs: dict[str, object] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add_tensor(self, tensor: LazyTensor) -> None:
        """Add a tensor under a name that is still free."""
        if tensor.name in self.tensors:
            raise refusal("WEIGHTS-NAME-TWICE", "two tensors would have this name", printable(tensor.name))
        if len(self.tensors) >= self.limits.tensors:
            raise refusal("WEIGHTS-LIMIT", f"the file has more than {self.limits.tensors} tensors")
        self.tensors[tensor.name] = tensor

    def skip(self, name: str, reason: str, finding: str) -> None:
        """Note a tensor that is left out."""
        self.skipped.append(Skipped(name=name, reason=reason, n_tensors=1))
        self.findings.append(Finding(finding, reason, printable(name)))
