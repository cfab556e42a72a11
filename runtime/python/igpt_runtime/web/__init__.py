"""The page that runs bundles in a browser, served on loopback. Nothing is computed here. Imports `bundle`."""
