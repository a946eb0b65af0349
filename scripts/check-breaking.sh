#!/usr/bin/env bash
# Fails when the contract breaks callers of what landed before: the point where this branch left main or, on main itself, the commit
# before this one. CONTRACT_BASE=<commit> compares with another one.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "SKIPPED breaking changes: $1" >&2
  exit 0
}

commit() { git rev-parse --quiet --verify "$1^{commit}"; }

base_commit() {
  local head main base
  head=$(commit HEAD) || return 1
  for main in origin/main main; do
    base=$(git merge-base HEAD "$main" 2>/dev/null) || continue
    [ "$base" != "$head" ] && echo "$base" && return
  done
  commit HEAD~1
}

if [ -n "${CONTRACT_BASE:-}" ]; then
  base=$(commit "$CONTRACT_BASE")
else
  base=$(base_commit) || skip "there is no earlier commit here to compare with."
fi
[ -n "$(git ls-tree -r --name-only "$base" -- proto)" ] || skip "commit ${base:0:12} has no contract yet."

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" buf.yaml proto | tar -x -C "$before"
buf breaking --against "$before"
echo "No breaking change since commit ${base:0:12}."
