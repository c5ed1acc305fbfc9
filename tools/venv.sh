#!/bin/sh
# Make a virtual environment, or say in one line what this machine lacks for it.
# Usage: tools/venv.sh PYTHON FOLDER
set -eu
python=$1
folder=$2

fail() {
    echo "etalon: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "$python was not found; install Python 3.11 or newer, or name it: make run PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; Python 3.11 or newer is needed: make run PYTHON=/path/to/python3"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv or pip; on Debian and Ubuntu: apt-get install python3-venv python3-pip"
[ -x "$folder/bin/python" ] && "$folder/bin/python" -m pip --version >/dev/null 2>&1 && exit 0
rm -rf "$folder"
"$python" -m venv "$folder" || fail "$python could not make a virtual environment in $folder"
