"""The model card of a bundle: what it is, how it is used, and which ONNX Runtime it needs, as README.md.

It reads a manifest and what a checkpoint says of itself, and imports `checkpoint` and the runtime.
"""
