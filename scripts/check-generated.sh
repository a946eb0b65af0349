#!/usr/bin/env bash
# src/gen is committed, so that nobody needs a generator to run or read it. This generates it again and fails when the two differ.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
buf generate -o "$fresh"
if ! diff -r "$fresh/src/gen" src/gen; then
  echo "src/gen is not what proto/ generates (above; < is what it would be). Run: npm run generate" >&2
  exit 1
fi
