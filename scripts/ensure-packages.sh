#!/usr/bin/env bash
# Installs the npm packages when package-lock.json asks for others than are there, and makes sure that npm scripts run on Node 24:
# where the machine's own node is older, the npm package `node` brings one into node_modules/.bin, which npm puts first on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

command -v npm >/dev/null || {
  say "Holdfast needs npm, which comes with Node.js 20 or newer: https://nodejs.org"
  exit 1
}

# The stamp holds what was installed: a file's age says little after a checkout.
stamp=node_modules/.installed-from
wanted=$(cksum <package-lock.json)
has_node_24() { PATH="$PWD/node_modules/.bin:$PATH" node -e 'process.exit(process.versions.node.split(".")[0] >= 24 ? 0 : 1)' 2>/dev/null; }
up_to_date() {
  [ -f node_modules/.package-lock.json ] || return 1
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || [ ! package-lock.json -nt node_modules/.package-lock.json ]
}

if ! up_to_date; then
  say "Installing npm packages ..."
  # Install scripts stay off: the one that is needed runs below, and older versions of npm know no list of allowed ones.
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  printf '%s' "$wanted" >"$stamp"
fi
if ! has_node_24; then
  say "Installing Node 24 into node_modules ..."
  npm rebuild --ignore-scripts=false --loglevel=error node >/dev/null
fi
has_node_24 || {
  say "Holdfast needs Node.js 24, and the npm package \`node\` could not bring it. Install it from https://nodejs.org"
  exit 1
}
