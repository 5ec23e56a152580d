#!/usr/bin/env bash
# Installs the Debian packages that building needs; prints nothing when all are there.
#   tools/install_packages.sh [--tests] [--page] [--package]
#       --tests:   also those of the test suite
#       --page:    also node and Chromium, for the report's page
#       --package: also those that tools/package.sh needs
set -euo pipefail

packages=(
  g++ cmake ninja-build                 # compiler and build
  libtorch-dev                          # the engine
  libgloo-dev                           # headers of what connects its processes
  libopenblas0-pthread                  # a BLAS about 100 times as fast as the reference one
  libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libxxhash-dev zlib1g-dev
)

page=
for option in "$@"; do
  case $option in
    --tests) packages+=(libgtest-dev libgmock-dev librapidcheck-dev clang-format) ;;
    --package) packages+=(dpkg-dev file) ;;
    --page)
      page=yes
      command -v npm >/dev/null || packages+=(nodejs npm)
      [[ -x /usr/bin/chromium ]] || packages+=(chromium)
      ;;
    *) echo "usage: tools/install_packages.sh [--tests] [--page] [--package]" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || missing+=("$package")
done
if ((${#missing[@]})); then
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
fi

if [[ $page ]]; then
  cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report-page"
  [[ -d node_modules ]] || npm ci --silent --no-audit --no-fund
fi
