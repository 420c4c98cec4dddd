"""What units do: the model runs with the activation of a unit, a head or a layer replaced by a baseline."""
