"""Small networks of six architectures with known relations: what `emergraph lineage` is held against."""
