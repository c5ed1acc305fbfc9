#!/bin/sh
# See to it that a Chromium is here for the browser tests, or say what to install.
# Usage: tools/browser.sh PLAYWRIGHT
set -eu
playwright=$1

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo -n"
    sudo -n true 2>/dev/null || as_root="no"
fi
if command -v apt-get >/dev/null 2>&1 && [ "$as_root" != "no" ]; then
    echo "etalon: installing Debian's chromium for the browser tests" >&2
    $as_root apt-get update -qq || true
    if $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
        exit 0
    fi
fi
"$playwright" install chromium && exit 0
echo "etalon: no browser for the tests; install one, for instance: sudo apt-get install chromium" >&2
exit 1
