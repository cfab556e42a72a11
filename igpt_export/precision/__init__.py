"""How numbers are stored: precisions, the calibration they need, and the tensors in them.

It imports `checkpoint` and `model`.
"""
