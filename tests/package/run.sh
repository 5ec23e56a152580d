#!/usr/bin/env bash
# The Debian package: built, installed into a clean Debian 12 by its own package manager, and run.
# Without root or mmdebstrap it is only unpacked, and run on the libraries of this machine.
#   tests/package/run.sh SOURCE_DIR WORK_DIR
set -euo pipefail
source=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
package=$("$source/tools/package.sh" "$work" | tail -1)
dpkg-deb --field "$package" Package Version Architecture Depends
depends=$(dpkg-deb --field "$package" Depends)
for name in libtorch libopenblas0-pthread libfmt libc6; do
  [[ $depends == *"$name"* ]] || { echo "error: the package does not depend on $name" >&2; exit 1; }
done

model=$source/models/nano-qwen35-bf16.gguf
if [[ $(id -u) == 0 ]] && command -v mmdebstrap >/dev/null; then
  root=$work/root
  trap 'rm -rf "$root"' EXIT
  mmdebstrap --quiet --variant=minbase --customize-hook="copy-in $package $model /tmp" \
    --customize-hook='chroot "$1" apt-get install -y -qq --no-install-recommends /tmp/*.deb' \
    bookworm "$root" >/dev/null
  program=(chroot "$root" spectralquant)
  model=/tmp/$(basename "$model") made=/tmp/made.gguf
  echo "installed into a clean chroot"
else
  dpkg-deb --extract "$package" "$work/unpacked"
  program=("$work/unpacked/usr/bin/spectralquant")
  made=$work/made.gguf
  echo "unpacked only: for a clean chroot, run as root with mmdebstrap installed"
fi

"${program[@]}" --version
"${program[@]}" quantize "$model" -o "$made" --effort fast --max-tokens 2048 --force
"${program[@]}" inspect "$made" --strict
