"""The commands of `igpt-run`, by what they are for: each parses, calls the library, prints."""
