"""Loss-landscape ruggedness: perturbed copies of a model's weights, and statistics with intervals and nulls.

Small pure modules, one concept each, take arrays and know nothing of neural networks (`autocorrelation`,
`information_content`, `fdc`, `neutrality`, `extrema`, `merge_tree`, `lon`, `hypercube`, ...). The engines
(`engine_ort`, `engine_torch`) give them losses of a real model through one protocol, `evaluator.Evaluator`.
"""
