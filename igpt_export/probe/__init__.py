"""Linear probes: classifiers fitted on a bundle's features, and baked into it. Needs the extra `probe`."""
