"""What works on this machine and what does not: the interpreter, the packages, ONNX Runtime, and a bundle.

It has to run where packages are missing or broken, so its modules import the standard library alone; the others are
imported where they are used. ONNX Runtime runs in processes of its own (`child`).
"""
