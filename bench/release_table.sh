#!/usr/bin/env bash
# Measures the published table of Qwen3.5-0.8B again, on the files of a folder, and prints it beside
# the published figures.
#
#   bench/release_table.sh MODEL_DIR [OPTION OF spectralquant quantize ...]
#
# MODEL_DIR holds the original and quantizations of it. Files are recognised by their names, in upper
# or lower case:
#   *BF16*.gguf                the original (else *F16*, *F32*); needed
#   *UD-Q4_K_XL*.gguf          dynamic mix; only scored when it is there
#   *spectral*.gguf            a published spectral file; only scored when it is there
#   *IQ4_NL* *IQ4_XS* *Q4_K_M* *Q4_K_S*
#                              mixes of public repositories; when missing, made with llama-quantize
#                              and an imatrix
#   *pure*Q4_K_M*.gguf         pure Q4_K_M without imatrix; made when missing
#   convergence60.jsonl heldout120.jsonl
#                              suites to use instead of this project's
#   c4*.jsonl, c4*.txt         scored as 64 windows of 256 tokens when it is there
# Files that are made go to OUT (default: out/release-table) and are kept for the next run. They, and
# the imatrix, are calibrated on CALIBRATION (default: "general self:65536").
#
# Needs spectralquant (SPECTRALQUANT, default build/release/bin/spectralquant) and python3;
# llama-quantize if it is on the PATH.
set -euo pipefail
shopt -s nullglob nocaseglob
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
sq=${SPECTRALQUANT:-$here/build/release/bin/spectralquant}
out=${OUT:-$here/out/release-table}
read -ra calibration <<<"${CALIBRATION:-general self:65536}"

fail() { printf 'release_table: %s\n' "$*" >&2; exit "${code:-1}"; }
say() { printf '%-12s %s\n' "$1" "$2" >&2; }

[[ $# -ge 1 ]] || code=2 fail "usage: bench/release_table.sh MODEL_DIR [OPTION OF spectralquant quantize ...]"
models=$1
shift
[[ -d $models ]] || code=2 fail "$models is no folder"
[[ -x $sq ]] || fail "$sq is missing: cmake --preset release && cmake --build build/release, or set SPECTRALQUANT"
command -v python3 >/dev/null || fail "python3 is needed to print the table"

# first PATTERN [NOT ...]: the first file of MODEL_DIR that fits PATTERN and none of the others.
first() {
  local pattern=$1 file name other
  shift
  for file in "$models"/$pattern; do
    name=${file##*/}
    for other in "mmproj*" "*-0000[2-9]-of-*" "$@"; do
      # shellcheck disable=SC2053  # the right side is a pattern
      [[ ${name,,} == ${other,,} ]] && continue 2
    done
    printf '%s\n' "$file"
    return
  done
}

reference=$(first '*BF16*.gguf')
[[ $reference ]] || reference=$(first '*F16*.gguf')
[[ $reference ]] || reference=$(first '*F32*.gguf')
[[ $reference ]] || code=3 fail "no original in $models: looked for *BF16*.gguf, *F16*.gguf, *F32*.gguf"
say original "$reference"
mkdir -p "$out"

quantizer=$(command -v llama-quantize || true)
[[ $quantizer ]] || say note "llama-quantize is not on the PATH: mixes that are missing stay out of the table"

imatrix=$out/imatrix.gguf
need_imatrix() {
  [[ -e $imatrix ]] || "$sq" calibrate "$reference" --imatrix "$imatrix" --calibration "${calibration[@]}" -q >&2
}

labels=() files=()
add() {
  say "$1" "$2"
  labels+=("$1") files+=("$2")
}

# mix LABEL TYPE PATTERN NOT...: a file of MODEL_DIR, or one made with the imatrix.
mix() {
  local label=$1 type=$2 file
  shift 2
  file=$(first "$@")
  if [[ ! $file && -e $out/$type-imatrix.gguf ]]; then file=$out/$type-imatrix.gguf; fi
  if [[ ! $file && $quantizer ]]; then
    need_imatrix
    file=$out/$type-imatrix.gguf
    "$quantizer" --imatrix "$imatrix" "$reference" "$file.new" "$type" >"$out/llama-quantize.log" 2>&1 || fail "llama-quantize $type: see $out/llama-quantize.log"
    mv "$file.new" "$file"
  fi
  if [[ $file ]]; then add "$label" "$file"; else say missing "$label: looked for $1 in $models"; fi
}

others=('*pure*' '*spectral*' '*UD-*' '*BF16*')
mix IQ4_NL IQ4_NL '*IQ4_NL*.gguf' "${others[@]}"
mix Q4_K_M Q4_K_M '*Q4_K_M*.gguf' "${others[@]}"
mix Q4_K_S Q4_K_S '*Q4_K_S*.gguf' "${others[@]}"
mix IQ4_XS IQ4_XS '*IQ4_XS*.gguf' "${others[@]}"
for pair in 'UD-Q4_K_XL|*UD-Q4_K_XL*.gguf' 'published spectral|*spectral*.gguf'; do
  file=$(first "${pair#*|}")
  if [[ $file ]]; then add "${pair%|*}" "$file"; else say missing "${pair%|*}: looked for ${pair#*|} in $models"; fi
done

# --method plain gives the tensors of llama-quantize --pure, bit for bit.
pure=$(first '*pure*Q4_K_M*.gguf' '*imatrix*')
[[ $pure ]] || pure=$out/pure-Q4_K_M.gguf
[[ -e $pure ]] || "$sq" quantize "$reference" -o "$pure" --method plain -q >&2
add 'pure Q4_K_M' "$pure"
if [[ $quantizer || -e $out/pure-Q4_K_M-imatrix.gguf ]]; then
  file=$out/pure-Q4_K_M-imatrix.gguf
  if [[ ! -e $file ]]; then
    need_imatrix
    "$quantizer" --pure --imatrix "$imatrix" "$reference" "$file.new" Q4_K_M >"$out/llama-quantize.log" 2>&1 || fail "llama-quantize: see $out/llama-quantize.log"
    mv "$file.new" "$file"
  fi
  add 'pure, imatrix' "$file"
fi

ours=$out/spectralquant.gguf
[[ -e $ours ]] || "$sq" quantize "$reference" -o "$ours" --calibration "${calibration[@]}" "$@" >&2
add SpectralQuant "$ours"

suites=()
for name in convergence60 heldout120; do
  file=$models/$name.jsonl
  [[ -e $file ]] || file=$here/suites/$name.jsonl
  suites+=("$name=$file")
done
for file in "$models"/c4*.jsonl "$models"/c4*.txt; do suites+=("c4=$file:64x256") && break; done

"$sq" eval --json --reference "$reference" "${files[@]}" --suite "${suites[@]}" >"$out/scores.json"

printf '%s\n' "${labels[@]}" >"$out/labels"
printf '%s\n' "${files[@]}" | paste "$out/labels" - | python3 "$here/bench/release_table.py" "$out/scores.json"
