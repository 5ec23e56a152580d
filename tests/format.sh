#!/usr/bin/env bash
# Sources are as .clang-format has them, and no line is wider than 100 columns unless it holds a
# text or an address that cannot be broken. Exits with 77, skipped, without clang-format 14: other
# versions break lines differently.
#   tests/format.sh SOURCE_DIR
set -euo pipefail
cd "$1"
shopt -s globstar nullglob
files=({spectralquant,tests,examples,bench,fuzz}/**/*.{h,cpp,inl,cu} tools/*.cpp)
if ((${#files[@]} < 100)); then
  echo "only ${#files[@]} sources found below $1" >&2
  exit 1
fi

export LC_ALL=C.UTF-8
if grep -nE '^.{101,}' "${files[@]}" | grep -vE '"|https?://'; then
  echo "these lines are wider than 100 columns" >&2
  exit 1
fi

formatter=
for name in clang-format-14 clang-format; do
  if [[ $("$name" --version 2>/dev/null) == *"version 14."* ]]; then formatter=$name; break; fi
done
if [[ ! $formatter ]]; then
  echo "skipped: clang-format 14 is not installed (apt-get install clang-format)"
  exit 77
fi
"$formatter" --style=file --dry-run -Werror "${files[@]}"
