#!/bin/sh
# See to it that a PostgreSQL server is here for the tests, or say that those on it are skipped.
# Usage: tools/postgres.sh
set -eu

command -v initdb >/dev/null 2>&1 && exit 0
for program in /usr/lib/postgresql/*/bin/initdb; do
    [ -x "$program" ] && exit 0
done

"${0%/*}/debian.sh" postgresql "the tests on PostgreSQL" && exit 0
echo "etalon: no PostgreSQL server, so the tests on it are skipped; sudo apt-get install postgresql" >&2
