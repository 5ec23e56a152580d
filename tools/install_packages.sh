#!/usr/bin/env bash
# Installs the Debian packages that building needs; prints nothing when all are there.
#   tools/install_packages.sh [--tests]      --tests: also those of the test suite
set -euo pipefail

packages=(
  g++ cmake ninja-build                 # compiler and build
  libtorch-dev libopenblas0-pthread     # the engine, and a BLAS that is about 100 times faster than the reference one
  libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libxxhash-dev
)
[[ ${1-} == --tests ]] && packages+=(libgtest-dev libgmock-dev librapidcheck-dev)

missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

echo "These Debian packages are needed to build: ${missing[*]}" >&2
echo "They are installed with apt-get, which needs root because it writes to the system's folders." >&2
if [[ $(id -u) == 0 ]]; then
  as_root=()
elif command -v sudo >/dev/null; then
  as_root=(sudo)
else
  echo "error: not root and no sudo here. As root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
