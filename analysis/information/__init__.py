"""What the blocks of a model do to information: estimators, hidden states, information emergence."""
