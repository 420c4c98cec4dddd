"""Does a network of higher emergence lie in a more rugged landscape? Parts of `ruggedness_study.py`."""
