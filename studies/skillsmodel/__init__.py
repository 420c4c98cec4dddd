"""Parts of the study of skills."""
