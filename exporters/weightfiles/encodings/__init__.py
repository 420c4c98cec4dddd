"""How the weights of a layer follow from what a file stores: packed integers, masks, norms, adapters."""

from emergraph.exporters.weightfiles.encodings.parameter import Encoding, Parameter, Part

__all__ = ["Encoding", "Parameter", "Part"]
