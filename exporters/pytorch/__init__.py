"""PyTorch: modules, exported programs, factories, training. torch is imported only when it is needed."""
