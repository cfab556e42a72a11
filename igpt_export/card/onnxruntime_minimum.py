"""The release of ONNX Runtime from which on the graphs of a bundle are computed right, as measured.

Measured with the CPU provider on Linux (x86-64, a processor with AMX): bundles of the demo model and the golden pack,
every graph, one picture and several, in every minor release from 1.17 to 1.32. Right is what draws the tokens of 1.32,
or, where the kernels of quantised weights round differently, what `igpt-run bench` takes for the model's own.
"""

from dataclasses import dataclass

PICTURES = "1.21 to 1.24 make other tokens of some pictures"  # a wrong MatMulInteger, seen on a processor with AMX


@dataclass(frozen=True)
class Minimum:
    """From when on a kind of bundle runs."""

    release: str | None  # of ONNX Runtime; None: not measured
    older: str  # what the releases before do


# By profile, and whether the cache is int8.
MINIMA = {
    ("fused", False): Minimum(
        "1.25",
        f"{PICTURES}, 1.18 draws other tokens or fails, and older ones cannot open the graphs; 1.19 and 1.20 are right",
    ),
    ("fused", True): Minimum(
        "1.28",
        "1.27 draws other tokens when it draws several pictures at once, 1.25 and 1.26 fail at the first token, and "
        "older ones cannot open the graphs that draw",
    ),
    ("portable", False): Minimum(
        "1.25",
        f"{PICTURES}, 1.18 to 1.23 crash when they open a graph that takes a picture, and older ones cannot open any",
    ),
}
MINIMA["portable", True] = MINIMA["portable", False]  # in standard operators, int8 needs no other kernels
HALF = Minimum(None, "fp16 is for the CUDA provider, which was measured in 1.31 only")


def minimum(profile: str, precision: str, kv_cache: str) -> Minimum:
    """What a bundle needs; the arguments as in its manifest."""
    return HALF if precision == "fp16" else MINIMA[profile, kv_cache == "int8"]
