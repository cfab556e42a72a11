"""What is written: pieces of the model are traced, and the bundle's graphs are put together of them.

It imports `precision`, `checkpoint` and `model`.
"""
