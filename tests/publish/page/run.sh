#!/bin/sh
# Runs a test of the report page with node; 77 says "skipped" to ctest.
#   run.sh SCRIPT.mjs ARGUMENT...
here=$(dirname "$0")
command -v node >/dev/null || { echo "skipped: node is not installed (apt-get install nodejs npm)"; exit 77; }
[ -d "$here/../../../tools/report-page/node_modules" ] || { echo "skipped: run 'npm ci' in tools/report-page first"; exit 77; }
exec node "$@"
