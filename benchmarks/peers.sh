#!/usr/bin/env bash
# Installs the libraries that benchmarks compare with, in build/peers, an environment on top of .venv (or of VENV=...).
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/layer "${VENV:-.venv}" build/peers
build/peers/bin/pip install --quiet quantus grad-cam torchcam
