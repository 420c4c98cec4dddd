"""The network-science view of a unit graph: strengths, communities, cores, backbones, spectra."""
