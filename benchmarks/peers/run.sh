#!/usr/bin/env bash
# Compares sightline with its peers on the same images, in one command: environments, sets, training, evaluation, tables.
#
#     SIGHTLINE_DATA=... OMP_NUM_THREADS=1 bash benchmarks/peers/run.sh
#
# SIGHTLINE_DATA names the folder with pets/, imagenet1k-sample/ and weights/. Everything that is made lies in build/comparison.
# What is done already is kept: a run that was ended goes on. VENV=... names another environment than .venv. COMPARISON=tiny runs
# every method to the end on a few small images, to see that it runs, and writes no results.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=${VENV:-.venv} out=build/comparison
mkdir -p "$out/environments" "$out/sources"
export PYTHONPATH="$PWD/src:$PWD/benchmarks/peers:$PWD/benchmarks"

environment() { # NAME PACKAGE...: an environment on top of the base
    local place="$out/environments/$1"
    [ -e "$place/installed" ] && return
    .ci/layer "$base" "$place"
    "$place/bin/python" -m pip install --quiet "${@:2}"
    touch "$place/installed"
}

source_of() { # NAME OWNER/REPOSITORY COMMIT: code that is in no package registry
    [ -d "$out/sources/$1" ] && return
    git clone --quiet "https://github.com/$2" "$out/sources/$1"
    git -C "$out/sources/$1" checkout --quiet "$3"
}

python_of() { if [ "$1" = base ]; then echo "$base/bin/python"; else echo "$out/environments/$1/bin/python"; fi; }

environment bnnr bnnr==0.8.0
environment spuco spuco==2.0.3 'scikit-learn<1.8' # later versions reject the solver that SpuCo's DFR uses for three classes
environment guidance captum
environment afr wandb transformers wilds einops
environment cleanlab 'cleanlab[image]==2.9.0'
environment peal peal-xai==0.1.0
source_of Model-Guidance sukrutrao/Model-Guidance 3a6e034a350284634afaa66e7d680cf19624deb9
source_of afr AndPotap/afr b34b6cd17cf920cd34a298c7801ca76a7b9db613

sightline=$(python_of base)
"$sightline" benchmarks/peers/export.py
"$sightline" benchmarks/peers/features.py
for place in base spuco afr guidance peal bnnr; do # the first one chooses the learning rate of the others
    "$(python_of "$place")" benchmarks/peers/worker.py "$place"
done
if [ "${COMPARISON:-}" != tiny ]; then
    "$sightline" benchmarks/peers/made_sets.py data
    "$(python_of cleanlab)" benchmarks/peers/datalab_check.py
    "$sightline" benchmarks/peers/made_sets.py network
fi
"$sightline" benchmarks/peers/measure.py
