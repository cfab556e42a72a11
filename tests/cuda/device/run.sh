#!/bin/bash
# On the machine with the GPU, in the project's root: bash build/gpu-kit/kit/run.sh [options of measure.py]
# Unpacks what was carried the first time, and measures. Results are in $OUT, or below $KIT_AT.
set -o pipefail
K=${KIT_AT:-/tmp/gpu}
OUT=${OUT:-$K/out}
mkdir -p "$K" "$OUT"
begin=$(date +%s)
if [ -d build/gpu-kit ]; then cp -r build/gpu-kit/. "$K"/ || exit 3; fi
now=$(cat "$K"/*.xz "$K"/wheels/* | sha256sum)
if [ "$now" != "$(cat "$K/unpacked" 2>/dev/null)" ]; then
  rm -rf "$K/site" "$K/bundles" "$K/graphs" "$K/work"
  python3 "$K/kit/unpack.py" "$K" || { ls -la "$K"; exit 3; }
  echo "$now" > "$K/unpacked"
fi
LIBRARIES=${STAND_IN:-$(python3 "$K/kit/libraries.py")}  # STAND_IN: libraries for rehearsals without a GPU
export LD_LIBRARY_PATH=$LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PYTHONPATH=$K/site:$PWD/runtime/python:$PWD
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false TORCHINDUCTOR_CACHE_DIR=$K/inductor
echo "unpacked and set up in $(( $(date +%s) - begin )) s; $(nproc) CPUs; $(du -sm "$K" | cut -f1) MB in $K"
python3 "$K/kit/measure.py" --kit "$K" --out "$OUT" "$@" 2>&1 | tee "$OUT/log.txt"
