#!/bin/sh
# See to it that a Chromium is here for the browser tests, or say what to install.
# Usage: tools/browser.sh PLAYWRIGHT
set -eu
playwright=$1

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done

"${0%/*}/debian.sh" chromium "the browser tests" && exit 0
"$playwright" install chromium && exit 0
echo "etalon: no browser for the tests; install one, for instance: sudo apt-get install chromium" >&2
exit 1
