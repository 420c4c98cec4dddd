"""Exporters: model files and modules in, blocks of edges, units and tensors out."""
