#!/usr/bin/env bash
# Time to score a candidate against its original, beside llama-perplexity --kl-divergence: same
# files, text, windows and threads.
#
#   bench/scoring_speed.sh ORIGINAL.gguf CANDIDATE.gguf TEXT [THREADS [RUNS]]
#
# llama-perplexity needs two runs, one that stores the original's probabilities and one that compares;
# both are timed. The programs take turns, so that a disturbance affects both. On a busy machine, look
# at the processor time.
# Needs llama-perplexity on the PATH and spectralquant (SPECTRALQUANT, default
# build/release/bin/spectralquant).
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
sq=${SPECTRALQUANT:-$here/build/release/bin/spectralquant}
[[ $# -ge 3 ]] || { echo "usage: bench/scoring_speed.sh ORIGINAL.gguf CANDIDATE.gguf TEXT [THREADS [RUNS]]" >&2; exit 2; }
original=$1 candidate=$2 text=$3 threads=${4:-2} runs=${5:-3}
command -v llama-perplexity >/dev/null || { echo "llama-perplexity is not on the PATH" >&2; exit 1; }
export OMP_WAIT_POLICY=passive
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT='%R %U %S'

# timed NAME COMMAND...: adds "NAME wall user system" to the list.
timed() {
  local name=$1
  shift
  { time "$@" >"$work/out" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }; } 2>"$work/time"
  printf '%s %s\n' "$name" "$(tail -n 1 "$work/time")" >>"$work/all"
}

for ((i = 0; i < runs; ++i)); do
  timed store llama-perplexity -m "$original" -f "$text" -c 512 -t "$threads" --kl-divergence-base "$work/logits"
  timed compare llama-perplexity -m "$candidate" -c 512 -t "$threads" --kl-divergence-base "$work/logits" --kl-divergence
  rm -f "$work/logits"
  timed eval "$sq" eval --no-cache --json -q --bootstrap 0 --threads "$threads" --reference "$original" "$candidate" --suite "text=$text:c512"
done
awk '
  { if (!($1 in wall) || $2 < wall[$1]) wall[$1] = $2; if (!($1 in cpu) || $3 + $4 < cpu[$1]) cpu[$1] = $3 + $4 }
  END {
    printf "%-44s %8s %10s\n", "best of the runs, seconds", "elapsed", "processor"
    printf "%-44s %8.2f %10.2f\n", "llama-perplexity, original (stores logits)", wall["store"], cpu["store"]
    printf "%-44s %8.2f %10.2f\n", "llama-perplexity, candidate (--kl-divergence)", wall["compare"], cpu["compare"]
    printf "%-44s %8.2f %10.2f\n", "spectralquant eval, both", wall["eval"], cpu["eval"]
    printf "%-44s %8.2f %10.2f\n", "eval / llama-perplexity, both runs", wall["eval"] / (wall["store"] + wall["compare"]), cpu["eval"] / (cpu["store"] + cpu["compare"])
  }' "$work/all"
