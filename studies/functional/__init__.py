"""Parts of the study of structure and function."""
