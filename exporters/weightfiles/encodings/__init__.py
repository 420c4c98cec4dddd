"""How the weights of a layer follow from what a file stores: packed integers, masks, norms, adapters."""
