"""The arithmetic: one torch module of ImageGPT, its fused operations, and the same operations in standard ONNX.

It reads no files. It imports the runtime only.
"""
