"""Emergence when the task changes, and in the classifier of a small VGG. Parts of `transfer_study.py`."""
