"""What igpt-onnx does on a GPU: is it right, how fast is it, beside transformers on the same card. One JSON, one table.

`python measure.py --kit DIR --out DIR [--budget SECONDS] [--stages a,b,...]`. Every stage runs in a process of its own
(a CUDA error that sticks, a crash or a hang ends that stage only), has a limit of time, and writes what it knows as it
goes; `results.json` is written anew after every stage, the table is printed last. With `--device cpu` the same code
runs without a GPU, for rehearsals.
"""

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from short import short

HERE = Path(__file__).resolve().parent
Json = dict[str, Any]

# In which module a kind of stage is: the part of its name before a hyphen.
MODULES = {
    "env": "stages_card",
    "profile": "stages_profile",
    **dict.fromkeys(("smoke", "parity", "tests"), "stages_check"),
    **dict.fromkeys(("speed", "features", "memory", "variants", "bench"), "stages_speed"),
    **dict.fromkeys(("torch", "compile"), "stages_peers"),
    **dict.fromkeys(("low", "nbits", "norms"), "stages_bits"),
}
# In order of value, with a limit in seconds each.
STAGES: dict[str, float] = {
    "env": 45,
    "smoke": 75,
    "parity": 120,
    "tests": 75,
    "speed-small": 75,
    "torch-small": 75,
    "features-small": 60,
    "speed-large": 120,
    "torch-large": 100,
    "profile-small": 45,
    "nbits-large": 90,
    "nbits-small": 60,
    "variants-small": 75,
    "variants-large": 90,
    "speed-medium": 90,
    "torch-medium": 75,
    "variants-medium": 75,
    "low": 90,
    "bench-small": 75,
    "profile-large": 45,
    "norms": 45,
    "memory-large": 90,
    "compile-small": 120,
}
# Ways to run, of which the first that works is used: variables that ONNX Runtime's attention reads when a session is
# made, provider options, whether a step is captured as a CUDA graph, and whether caches are made on the host.
CONFIGS: dict[str, Json] = {
    "as it is": {},
    "caches sent whole": {"host_cache": True},
    "XQA": {"env": {"ORT_ENABLE_XQA": "1", "ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0"}},
    "flash attention only": {"env": {"ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0", "ORT_ENABLE_XQA": "0"}},
    "without cuDNN": {
        "options": {"enable_cudnn": "0"},
        "env": {"ORT_ENABLE_XQA": "1", "ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0"},
    },
    "flash attention only, no CUDA graph": {
        "env": {"ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0", "ORT_ENABLE_XQA": "0"},
        "graph": False,
    },
}
ROWS = (1, 8, 32, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, default=HERE)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--work", type=Path, help="where logits are kept between calls; KIT/work")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all stages")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--config", choices=tuple(CONFIGS), help="take this way of running instead of the first that works"
    )
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) - 4), help="that make weights")
    parser.add_argument("--quick", action="store_true", help="few rows and steps, for rehearsals")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, json.loads(options.options), options.result)
        return
    begin = time.perf_counter()
    work = options.work or options.kit / "work"
    for directory in (work, options.out):
        directory.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.stages.split(",") if name]
    assert set(names) <= set(STAGES), set(names) - set(STAGES)
    sizes = [size for size in ("small", "large", "medium") if any(size in n for n in names)]
    wanted = ["small-fp16", "small-fp32"] * bool({"parity", "low"} & set(names)) + [f"{size}-fp16" for size in sizes]
    bundles = [str(options.kit / "graphs" / name) for name in dict.fromkeys(wanted)]
    making = None
    if bundles:
        log = (work / "models.log").open("a")
        command = [sys.executable, str(HERE / "models.py"), *bundles, "--threads", str(options.threads)]
        making = subprocess.Popen(command, stdout=log, stderr=log)
    passed: Json = {
        "kit": str(options.kit),
        "work": str(work),
        "device": options.device,
        "config": CONFIGS.get(options.config, {}),
        "configs": {options.config: CONFIGS[options.config]} if options.config else CONFIGS,
        "rows": (1, 2) if options.quick else ROWS,
        "steps": 8 if options.quick else 64,
        "stepped": 32 if options.quick else 1024,
        "feature_rows": (1, 2) if options.quick else (1, 8, 32, 64),
        "completions": (2,) if options.quick else (8, 32),
        "torch_rows": (1, 2) if options.quick else (1, 8, 32),
        "torch_steps": 6 if options.quick else 24,
        "dtypes": ("float16",) if options.quick else ("float16", "bfloat16"),
    }
    before = options.out / "results.json"  # of an earlier call, whose stages are kept
    results: Json = json.loads(before.read_text())["stages"] if before.exists() else {}
    earlier = work / "config.json"  # what an earlier call on this machine found to work
    if not options.config and earlier.exists():
        passed["config"] = json.loads(earlier.read_text())
    try:
        for name in names:
            left = options.budget - (time.perf_counter() - begin)
            if left < 10:
                results[name] = {"left out": "no time left"}
                continue
            results[name] = run_process(name, passed, work, min(STAGES[name], left))
            if name == "smoke":
                works = results[name].get("works")
                if works is None:
                    print("nothing works: no use to go on", flush=True)
                    break
                passed["config"] = CONFIGS[works]
                earlier.write_text(json.dumps(CONFIGS[works]))
            write(options.out, results, begin)
    finally:
        if making is not None:
            making.terminate()
            making.wait()
        write(options.out, results, begin)
        with contextlib.suppress(OSError):
            print((work / "models.log").read_text(), flush=True)
        print(table(results), flush=True)


def run_process(name: str, passed: Json, work: Path, limit: float) -> Json:
    """A stage's findings, and how it ended if it did not end well."""
    print(f"== {name} (at most {limit:.0f} s)", flush=True)
    result = work / f"{name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-u", str(Path(__file__).resolve()), "--stage", name, "--result", str(result)]
    process = subprocess.Popen([*command, "--options", json.dumps(passed)], start_new_session=True)
    ended = None
    try:
        code = process.wait(limit)
        if code:
            ended = f"ended with {code}"
    except subprocess.TimeoutExpired:
        ended = f"stopped after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    found: Json = json.loads(result.read_text()) if result.exists() else {}
    if ended:
        found["ENDED"] = ended
        print(f"== {name}: {ended}", flush=True)
    return found


def run_stage(name: str, options: Json, result: Path) -> None:
    """In a process of its own."""
    from stage import Stage

    stage = Stage(result, options)
    kind, _, size = name.partition("-")
    with stage.attempt(name):
        module = importlib.import_module(MODULES[kind])
        getattr(module, f"stage_{kind}")(stage, *([size] if size else []))
    stage["seconds"] = time.perf_counter() - stage.begin


def write(out: Path, results: Json, begin: float) -> None:
    """Where it comes back from; a table that cannot be made must not end the rest."""
    record = {"seconds": time.perf_counter() - begin, "stages": results}
    partial = out / "results.partial"
    partial.write_text(json.dumps(record, indent=1, default=str))
    partial.rename(out / "results.json")
    (out / "table.txt").write_text(table(results))


def table(results: Json) -> str:
    """What a person reads first."""
    try:
        return "\n".join(["", "=== table", *_lines(results)]) + "\n"
    except Exception:
        return f"no table: {traceback.format_exc()}\n"


def _lines(results: Json) -> Iterator[str]:
    env, smoke, floor = (
        results.get("env", {}),
        results.get("smoke", {}),
        results.get("env", {}).get("read_gb_per_second"),
    )
    ceilings = {name: env.get(name) for name in ("copy_gb_per_second", "read_gb_per_second", "fp16_tflops")}
    yield f"{env.get('nvidia-smi')}; {short(ceilings)}"
    yield f"runs: {smoke.get('works')}; CUDA graphs: {short(smoke.get('captures'))}"
    for stage, found in results.items():
        for name, value in found.items():
            if name in ("seconds", "packages", "logits saved", "said", "gpu_gb before") or (
                stage in ("env",) and "FAILED" not in name
            ):
                continue
            said = short(value, 160)
            if isinstance(value, dict) and "step_ms" in value:
                said = f"{value['step_ms']:.2f} ms a step, {value['tokens_per_second']:.0f} tokens/s"
                if "gb_per_second" in value:
                    said += f", {value['gb_per_second']:.0f} GB/s" + (
                        f" ({value['gb_per_second'] / floor:.0%})" if floor else ""
                    )
                for key in ("seconds", "completion_s", "to_first_token_s", "gpu_gb"):
                    said += f", {key} {value[key]:.2f}" if isinstance(value.get(key), float) else ""
            yield f"{stage} {name}: {said}"
        if stage == "tests":
            yield f"tests: {str(found.get('said', '')).strip().splitlines()[-1:]}"


if __name__ == "__main__":
    main()
