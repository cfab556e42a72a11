"""What is on disk: the bundle directory, its manifest, and the names and shapes of what its graphs take and give.

It knows files and JSON, and nothing of ONNX Runtime or of pictures. It imports the package's base: errors and files.
"""
