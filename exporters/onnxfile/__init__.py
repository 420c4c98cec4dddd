"""Reading ONNX files that nobody vouches for: bounds first, memory later, code never."""
