"""The rows of the comparison: which system, in which environment, at which setting."""

from dataclasses import dataclass, field
from pathlib import Path

from peers.machine import has_avx512

# glibc returns large freed blocks to the system and faults them in again; a runtime that makes a new cache every step
# spends half its time there. Measured on transformers at batch 32: 2.6 times as fast with this.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "67108864"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str  # of the system
    variant: str  # what its module is asked for
    module: str  # of this package
    environment: str  # below build/peers; "" is the project's own
    precision: str = "fp32"  # of the weights
    partly: tuple[str, ...] = ()  # completions too slow to time in full
    environ: dict[str, str] = field(default_factory=dict)
    bundle: Path | None = None  # of igpt-run's engine

    @property
    def key(self) -> str:
        """Identifies the row in a record and on the command line."""
        return f"{self.name} {self.variant}".replace(" ", "-")


def engine(precision: str, bundle: str) -> Row:
    """igpt-run's engine on a bundle."""
    return Row("igpt-run", precision, "engine", "", precision, bundle=Path(bundle).absolute())


def everybody_else() -> list[Row]:
    """The peers."""
    # CTranslate2 takes AVX2 on processors that are not Intel's.
    avx512 = {"CT2_FORCE_CPU_ISA": "AVX512"} if has_avx512() else {}
    slow = ("complete32",)
    return [
        Row("transformers", "eager", "transformers", "transformers", partly=slow, environ=KEEP_MEMORY),
        Row("transformers", "compiled", "transformers", "transformers", partly=slow),  # its cache is static
        Row("optimum", "fp32", "optimum", "optimum", partly=slow, environ=KEEP_MEMORY),
        Row("CTranslate2", "fp32", "ctranslate2", "ctranslate2", partly=slow, environ=avx512 | KEEP_MEMORY),
        Row("CTranslate2", "int8", "ctranslate2", "ctranslate2", "int8", partly=slow, environ=avx512 | KEEP_MEMORY),
        Row("OpenVINO", "fp32", "openvino", "openvino"),
        Row("OpenVINO", "bf16", "openvino", "openvino", "bf16"),
        Row("OpenVINO", "int8", "openvino", "openvino", "int8"),
        Row("llama.cpp", "fp32", "llama_cpp", "llama_cpp"),
        Row("llama.cpp", "q8_0", "llama_cpp", "llama_cpp", "q8_0"),
        Row("llama.cpp", "q4_0", "llama_cpp", "llama_cpp", "q4_0"),
    ]
