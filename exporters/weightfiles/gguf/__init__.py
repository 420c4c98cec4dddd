"""GGUF files: header and metadata by a strict reader of this project, packed values by the gguf package."""
