#!/usr/bin/env bash
# The published numbers on a machine with a GPU, in calls of some minutes; see benchmarks/README.md.
#
#   benchmarks/headline.sh [MINUTES] [OPTIONS OF python -m benchmarks headline]
#   benchmarks/headline.sh pack DATA_FOLDER...       before, on a machine with a network: what has to be carried, into .carry/
#
# Every step is skipped where it is done, so the same call goes on. Nothing is downloaded. The environment may say otherwise:
#   PYTHON (python3)  CARRIED (.carry)  HEADLINE (runs/headline)  SPIKEDISTILL_DATA (.data)
#   BRING (nowhere): folder for what leaves the machine, 8 files of 16 MiB, 64 MiB in all
#   TESTS_S (240), PROFILE_S (120): seconds for the tests, and for the profile and the speed of a run; 0 leaves them out
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} carried=${CARRIED:-.carry} out=${HEADLINE:-runs/headline} site=runs/site
export SPIKEDISTILL_DATA=${SPIKEDISTILL_DATA:-$PWD/.data} PYTHONUNBUFFERED=1
shopt -s nullglob

pack() { # wheels, and the data in two parts, in shards of 8 MiB
  rm -rf "$carried"
  mkdir -p "$carried"/{wheels,data1,data2,split}
  # the machine's own versions differ from ours only where several suffice
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${FOR_PYTHON:-3.12}" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest "$carried/wheels" --requirement benchmarks/headline_wheels.txt
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$carried/wheels" . # says its version; the code itself is the checkout's
  for folder in "$@"; do
    "$python" -m benchmarks split "$(basename "$folder")" --root "$(dirname "$folder")" --mib 8 --to "$carried/split"
  done
  local shards=("$carried"/split/*.shard) number=0
  for shard in "${shards[@]}"; do
    number=$((number + 1))
    mv "$shard" "$carried/data$((number * 12 > ${#shards[@]} * 5 ? 2 : 1))/" # less in the first, with which the wheels travel
  done
  rmdir "$carried/split"
  du -sh "$carried"/*
}

if [ "${1:-}" = pack ]; then
  shift
  pack "$@"
  exit
fi
minutes=9
if [[ ${1:-} =~ ^[0-9.]+$ ]]; then
  minutes=$1
  shift
fi
mkdir -p "$out"
say() { printf '%4d s  %s\n' "$SECONDS" "$*" | tee -a "$out/log.txt"; }

wheels=("$carried"/wheels/*.whl)
if [ ${#wheels[@]} -gt 0 ] && [ ! -d "$site" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site.partial" "${wheels[@]}"
  mv "$site.partial" "$site"
  say "installed ${#wheels[@]} wheels"
fi
export PYTHONPATH=$PWD/src:$PWD:$PWD/$site

# What an earlier stay brought out: networks and a run that was stopped in shards, and the records.
shards=("$carried"/runs*/*.shard)
if [ ${#shards[@]} -gt 0 ] && [ ! -e "$out/.joined" ]; then
  "$python" -m benchmarks join "${shards[@]}" --to "$out"
  # what was carried in need not be brought out again
  [ -e "$out/brought.json" ] || "$python" -c 'import json, os, sys; print(json.dumps([*map(os.path.basename, sys.argv[1:])]))' \
    "${shards[@]}" >"$out/brought.json"
  touch "$out/.joined"
fi
for records in "$carried"/runs*/records.jsonl; do
  [ -e "$out/records.jsonl" ] || cp "$records" "$out/"
done

# Data: shards of a folder that holds official archives, or parts with a program of their own that unpacks them.
shards=("$carried"/data*/*.shard)
if [ ${#shards[@]} -gt 0 ] && [ ! -e "$SPIKEDISTILL_DATA/.joined" ]; then
  if "$python" -m benchmarks join "${shards[@]}" --to "$SPIKEDISTILL_DATA"; then touch "$SPIKEDISTILL_DATA/.joined"; fi
fi
for archive in "$SPIKEDISTILL_DATA"/{,*/}cifar-*-python.tar.gz; do
  [ -d "$SPIKEDISTILL_DATA/$(basename "${archive/cifar-10-python/cifar-10-batches-py}" .tar.gz)" ] || tar -xzf "$archive" -C "$SPIKEDISTILL_DATA"
done
for program in "$SPIKEDISTILL_DATA"/*/unpack.py; do
  for dataset in cifar10:cifar-10-batches-py cifar100:cifar-100-python; do
    if [ -d "$(dirname "$program")/${dataset%:*}" ] && [ ! -d "$SPIKEDISTILL_DATA/${dataset#*:}" ]; then
      "$python" "$program" "${dataset%:*}" "$SPIKEDISTILL_DATA"
      say "unpacked ${dataset%:*}"
    fi
  done
done

# Once on every GPU: the tests of what runs there only, and a profile.
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  if [ "${TESTS_S:-240}" != 0 ] && [ ! -e "$out/.tested" ]; then
    side_by_side=$("$python" -c 'import xdist' 2>/dev/null && echo "-n 4" || true)
    # shellcheck disable=SC2086
    timeout "${TESTS_S:-240}" "$python" -m pytest -p no:cacheprovider -vv --tb=short $side_by_side tests/neurons/test_kernels.py \
      tests/through_time/test_captured.py 2>&1 | tee -a "$out/log.txt" | tail -n 40 || say "the tests failed, or took too long"
    say "tests done"
    touch "$out/.tested"
  fi
  if [ "${PROFILE_S:-120}" != 0 ] && [ ! -e "$out/.profiled" ]; then
    timeout "${PROFILE_S:-120}" "$python" -m benchmarks kernels --out "$out/kernels.json" 2>&1 | tee -a "$out/log.txt" ||
      say "the profile failed, or took too long"
    say "profile done"
    touch "$out/.profiled"
  fi
  if [ "${PROFILE_S:-120}" != 0 ] && [ ! -e "$out/.measured" ] && [ -d "$SPIKEDISTILL_DATA/cifar-100-python" ]; then
    timeout "${PROFILE_S:-120}" "$python" -m benchmarks run --recipe cifar100-sce --device cuda --precision bf16-mixed --channels-last \
      --batch 512 --epochs 3 --turn 2 --out "$out/run.json" 2>&1 | tee -a "$out/log.txt" || say "measuring a run failed, or took too long"
    say "speed of a run beside its step done"
    touch "$out/.measured"
  fi
fi

left=$("$python" -c "print(max(0.0, round($minutes - $SECONDS / 60, 2)))")
"$python" -m benchmarks headline --out "$out" --minutes "$left" ${BRING:+--bring "$BRING"} "$@" 2>&1 | tee -a "$out/log.txt"
