"""Reading untrusted ONNX files: bounds first, memory later, code never."""
