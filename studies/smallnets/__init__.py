"""What E is in several hundred small networks, and what it foretells. Parts of `smallnets_study.py`."""
