"""Linear probes: classifiers fitted on features of a layer, and the bundle with one. The `probe` command.

It imports all of the exporter, where a bundle is written, and the runtime.
"""
