"""What the figures draw whose runs few stores hold: long names, small and large numbers, many rows."""

import polars as pl

LONG = [f"/model/encoder/stage.{k // 4}/block.{k % 4}/attention/output/projection/MatMul" for k in range(12)]
STEPS = [0, 1, 2, 3]
WAYS = ("positive", "negative", "no weight")

FRAMES = {
    "landscape-hessian": {
        "ritz": pl.DataFrame(
            {"number": [0, 0, 1], "eigenvalue": [-1.0, 3.0, 1.0], "weight": [0.25, 0.75, 1.0]}
        ),
        "extremes": pl.DataFrame({"eigenvalue": [-1.0, 3.0]}),
    },
    "information": {
        "blocks": pl.DataFrame(
            {
                "block": LONG,
                "emergence": [0.5 + k / 100 for k in range(12)],
                "low": [0.1] * 12,
                "high": [0.9] * 12,
                "ideal": [1.0 + k / 9 for k in range(12)],
            }
        )
    },
    "trajectory": {
        "steps": pl.DataFrame(
            {
                "training": ["a"] * 4 + ["b"] * 4,
                "step": STEPS * 2,
                "paths": ["through any unit"] * 4 + ["through active units only"] * 4,
                "log10": [1.0, 2.0, 2.5, 2.7, None, 1.5, 1.7, 1.8],
                "metric": [1e-5, 2e-5, 3e-5, 5e-5] * 2,
            }
        )
    },
    "training": {
        "metrics": pl.DataFrame(
            {
                "step": [step * 100_000 for step in STEPS] * 3,
                "name": [name for name in ("accuracy", "loss", "tokens") for _ in STEPS],
                "value": [0.1, 0.5, 0.7, 0.71, 3e-7, 2e-7, 1e-7, 0.9e-7, 1e9, 2e9, 3e9, 4e9],
                "training": [0] * 12,
            }
        )
    },
    "pruning-runs": {"runs": pl.DataFrame({"level": [0.0, 0.5], "relative_mse": [0.0, 0.3]})},
    "circuit": {
        "units": pl.DataFrame(
            {
                "unit": list(range(12)),
                "layer": LONG,
                "role": ["input", *["hidden"] * 10, "output"],
                "x": list(range(12)),
                "row": [0] * 12,
            }
        ),
        "edges": pl.DataFrame(
            {
                "src": list(range(11)),
                "dst": list(range(1, 12)),
                "size": [0.1 * k for k in range(11)],
                "way": [WAYS[k % 3] for k in range(11)],
            }
        ),
    },
    "lineage-tree": {
        "rows": pl.DataFrame(
            {
                "child": [f"{'long-' * 12}{k}.onnx" for k in range(1, 6)],
                "parent": ["base.onnx", *(f"{'long-' * 12}{k}.onnx" for k in range(1, 5))],
                "kind": ["fine-tuned", "pruned", "quantized", "averaged", "cut"],
                "family": [0] * 5,
            }
        )
    },
}
"""By the name of a figure, its frames."""
