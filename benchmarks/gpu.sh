#!/usr/bin/env bash
# Writes every figure of a GPU in one call: the tests that need one, then the benchmarks, each to benchmarks/results/*-cuda.json.
#   bash benchmarks/peers.sh && bash benchmarks/gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.."
python=build/peers/bin/python
failed=()
run() { printf '\n== %s\n' "$*"; "$@" || failed+=("$*"); }

"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "PyTorch finds no CUDA device here")' || exit 1
run "$python" -m pytest -q -m gpu
for name in explainers fastest reexecution metrics lots explainer_times training region_activation reweighting partition_shap; do
  run "$python" "benchmarks/$name.py" --device cuda
done
printf '\n%s\n' "failed: ${failed[*]:-nothing}"
[ ${#failed[@]} -eq 0 ]
