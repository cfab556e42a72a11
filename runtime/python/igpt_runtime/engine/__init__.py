"""What runs: ONNX Runtime sessions, the key/value cache, and the loop that draws token after token.

It deals in tokens, never in pictures. It imports `bundle` and the package's base.
"""
