"""Judging the classes and functions that a pickle names, by name alone: nothing is ever imported."""

import sys
from dataclasses import dataclass
from enum import Enum

from emergraph.exporters.weightfiles.numpyobjects import shown_name
from emergraph.exporters.weightfiles.rebuild import ALLOWED
from emergraph.exporters.weightfiles.registry import refusal


class Verdict(Enum):
    """What becomes of a name."""

    ALLOWED = "allowed"
    """It is on the list and has an inert stand-in."""
    SCRIPT = "script"
    """A class that a TorchScript archive defines itself; its objects become placeholders."""
    CLASS = "class"
    """A class from elsewhere: a placeholder where no weight needs it or where that was asked for."""
    FOREIGN = "foreign"
    """A function from elsewhere: refused, or a placeholder where that was asked for."""
    MODULE = "module"
    """A class of torch's modules: the file holds a whole network with its code."""


_DATA_ONLY = frozenset(
    {
        "pathlib",
        "datetime",
        "collections",
        "typing",
        "enum",
        "decimal",
        "fractions",
        "uuid",
        "ipaddress",
        "zoneinfo",
    }
)
"""Modules of the standard library whose classes hold plain data: foreign, but no sign of an attack."""
_DATA_LOWER = frozenset(
    {"datetime", "date", "time", "timedelta", "timezone", "deque", "defaultdict", "namedtuple"}
)
"""The classes of those modules whose names begin with a small letter; their functions may run programs."""
_DATA_CLASSES = frozenset(
    {
        "argparse Namespace",
        "types SimpleNamespace",
        "copyreg _reconstructor",
        "copy_reg _reconstructor",
        "builtins slice",
        "builtins range",
        "__builtin__ slice",
        "__builtin__ xrange",
    }
)
_SYSTEM = frozenset(
    {*sys.stdlib_module_names, "__builtin__", "copy_reg", "posix", "nt", "commands", "pip", "setuptools"}
)
_TORCH_CLASSES = (
    "torch.nn.",
    "torch.optim",
    "torch.ao.",
    "torch.quantization",
    "torch.utils.data",
    "torch.distributions",
    "torch.torch_version",
)
_CALLERS = frozenset({"functools partial"})
"""Classes that call what they are given: as foreign as a function."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a reader lets pass."""

    allow_missing: bool = False
    """Turn objects of classes from elsewhere into placeholders."""
    around: frozenset[Verdict] = frozenset()
    """What from elsewhere is read around; callers that ask for it refuse weights that stand inside."""
    script: bool = False
    """Accept the classes that a TorchScript archive defines."""

    def passes(self, verdict: Verdict) -> bool:
        """Whether what was named may pass as a placeholder."""
        if verdict in {Verdict.ALLOWED, Verdict.SCRIPT} or self.allow_missing:
            return True
        return verdict in self.around


DEFAULT_POLICY = Policy()
NOT_NEEDED = frozenset({Verdict.CLASS, Verdict.MODULE})
"""What a reader of weights reads around."""


def judge(module: str, name: str, policy: Policy, where: str) -> Verdict:
    """Say what becomes of a class or function that a pickle names.

    A file that names functions of the system is refused even where classes from elsewhere are allowed.
    Nothing would run, since no name is ever looked up; but such a file was not made to hold weights.

    Args:
        module: Module, as the pickle has it.
        name: Name within the module.
        policy: What the reader lets pass.
        where: How to name the file in messages.

    Raises:
        UnsafeInputError: the name is one that no weights need (PICKLE-CODE).
    """
    key = f"{module} {name}"
    if key in ALLOWED:
        return Verdict.ALLOWED
    if policy.script and (module == "__torch__" or module.startswith("__torch__.")):
        return Verdict.SCRIPT
    top = module.split(".", maxsplit=1)[0]
    is_class = name[:1].isupper() or name in _DATA_LOWER
    if key in _DATA_CLASSES or (top in _DATA_ONLY and is_class and "." not in name):
        return Verdict.CLASS
    if key in _CALLERS:
        return Verdict.FOREIGN
    if top == "torch":
        if module.startswith(_TORCH_CLASSES) and "." not in name and name[:1].isupper():
            return Verdict.MODULE if module.startswith("torch.nn.modules") else Verdict.CLASS
        raise _code(module, name, where)
    if top in _SYSTEM or not module or not name:
        raise _code(module, name, where)
    return Verdict.CLASS if _is_class(name) else Verdict.FOREIGN


def _is_class(name: str) -> bool:
    """Whether a name, and every class around it, is written as those of classes are."""
    return all(part.lstrip("_")[:1].isupper() for part in name.split("."))


def refuse_foreign(foreign: dict[str, Verdict], where: str) -> Exception:
    """Return the error that names the classes from elsewhere and says what to do."""
    names = [shown_name(*key.split(" ", 1)) for key in foreign]
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if Verdict.MODULE in foreign.values():
        message = f"the file holds a whole module ({listed}), which needs its code; save module.state_dict()"
        return refusal(
            "PICKLE-MODULE",
            f"{message} or export ONNX, or read the weights alone with --allow-missing-classes",
            where,
        )
    message = (
        f"a pickle that would run code when loaded: it needs classes from elsewhere ({listed}); save "
        "the weights alone as a state dict"
    )
    return refusal(
        "PICKLE-FOREIGN",
        f"{message}, or read the tensors alone with --allow-missing-classes",
        where,
    )


def _code(module: str, name: str, where: str) -> Exception:
    message = (
        f"a pickle that would run code when loaded: it names {shown_name(module, name)}, which no "
        "weights need; nothing was run"
    )
    return refusal("PICKLE-CODE", message, where)
