#!/usr/bin/env bash
# Installs the Debian packages that building and testing need and that are missing. Why each: docs/dependencies.md.
set -euo pipefail

packages=(
  build-essential cmake ninja-build ccache mold clang-format pkg-config
  libfmt-dev nlohmann-json3-dev libcli11-dev libgtest-dev libjpeg62-turbo-dev
  python3-venv fonts-dejavu-core
)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2> /dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing Debian packages: ${missing[*]}"
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "needs root rights to install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
