"""Parts of the study of information emergence."""
