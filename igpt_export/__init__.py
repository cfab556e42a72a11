"""Turns ImageGPT checkpoints into self-contained ONNX bundles."""
