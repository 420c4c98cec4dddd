"""The solvable model of skills: closed forms, fits, predictions and simulations (arXiv 2404.17563)."""
