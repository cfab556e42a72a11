"""Whether it is right: the written bundle against torch, graph by graph, and what its precision costs.

It reads bundles, never the objects they were written from, and imports `precision`, `checkpoint` and `model`.
"""
