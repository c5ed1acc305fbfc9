#!/bin/sh
# Install a Debian package without a question, where apt and the rights for it are at hand.
# Usage: tools/debian.sh PACKAGE PURPOSE
set -eu
package=$1
purpose=$2

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo -n"
    sudo -n true 2>/dev/null || exit 1
fi
command -v apt-get >/dev/null 2>&1 || exit 1
echo "etalon: installing Debian's $package for $purpose" >&2
$as_root apt-get update -qq || true
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$package" >/dev/null
