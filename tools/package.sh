#!/usr/bin/env bash
# Builds the Debian package of the program and prints its path. It fits the Debian it is built on.
#   tools/package.sh [FOLDER]      FOLDER: where the package goes; out/ if not given
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
case ${1-} in
  -*) echo "usage: tools/package.sh [FOLDER]" >&2; exit 2 ;;
esac
out=${1:-$here/out}
build=$here/build/release  # what ./demo builds, too

"$here/tools/install_packages.sh" --package
mkdir -p "$here/build" "$out"
cmake -S "$here" --preset release -DSPECTRALQUANT_TESTS=OFF -DSPECTRALQUANT_EXAMPLES=OFF \
  >"$here/build/configure.log" 2>&1 || { cat "$here/build/configure.log" >&2; exit 1; }
cmake --build "$build" >&2
cpack --config "$build/CPackConfig.cmake" -B "$out" >"$here/build/package.log" 2>&1 ||
  { cat "$here/build/package.log" >&2; exit 1; }
rm -r "$out/_CPack_Packages"
ls "$out"/spectralquant_*_"$(dpkg --print-architecture)".deb
