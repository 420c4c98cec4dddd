"""Channels of a model's tensors: which of them a masked model no longer needs, and the model without them."""
