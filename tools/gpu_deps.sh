#!/usr/bin/env bash
# Fills a folder for -DSPECTRALQUANT_DEPS=DIR: the headers and static libraries that the build needs
# beside PyTorch's libtorch. For GPU machines, which are often bare: make the folder on a Debian or
# Ubuntu machine and copy it there; both need the same kind of processor.
#   tools/gpu_deps.sh DIR
# What is installed is copied; the rest is fetched with apt-get download, which needs no root.
set -euo pipefail

if (($# != 1)) || [[ $1 == -* ]]; then
  echo "usage: tools/gpu_deps.sh DIR" >&2
  exit 2
fi
mkdir -p "$1/include" "$1/lib"
target=$(cd "$1" && pwd)
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT

# package, then what is taken from it: files or folders below usr/include, and libraries
parts=(
  "libfmt-dev fmt"
  "nlohmann-json3-dev nlohmann"
  "libcli11-dev CLI"
  "libxxhash-dev xxhash.h"
  "libpcre2-dev pcre2.h libpcre2-8.a"
  "zlib1g-dev zlib.h zconf.h libz.a"
)

# The root below which a package's files lie: / where it is installed.
root_of() {
  local package=$1
  if [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]]; then
    echo /
    return
  fi
  (cd "$unpacked" && apt-get download -qq "$package" >&2 && dpkg-deb -x "$package"_*.deb "$package")
  echo "$unpacked/$package/"
}

for part in "${parts[@]}"; do
  read -r package names <<<"$part"
  root=$(root_of "$package")
  for name in $names; do
    if [[ $name == *.a ]]; then
      place=$target/lib below=${root}usr/lib
    else
      place=$target/include below=${root}usr/include
    fi
    # some packages keep files in a folder of the processor's kind, such as x86_64-linux-gnu
    found=
    for path in "$below/$name" "$below"/*-linux-gnu/"$name"; do
      if [[ -e $path ]]; then found=$path; break; fi
    done
    if [[ ! $found ]]; then
      echo "error: $package holds no $name" >&2
      exit 1
    fi
    rm -rf "${place:?}/$name"
    cp -rL "$found" "$place/"
  done
done
echo "$target: give it with -DSPECTRALQUANT_DEPS=$target"
