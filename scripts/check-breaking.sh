#!/usr/bin/env bash
# Fails when the contract breaks callers of any earlier one: of every state of proto/ that main has had since the last release (a tag
# v*), or since the first while nothing is released. One commit back is not enough: a push may hold many, and a break hides behind the
# commit that follows it. So what was taken back is reported, too: reserve its name and number, because somebody may have built on it.
#
# Until the first release a break that is meant may say so, in the message of its commit: a line `Breaking-Contract: <why>`. Comparing
# then begins with that commit. On a branch, the states before it left main count, not its own. CONTRACT_BASE=<commit> compares with
# that one alone. In a shallow clone only what is there can be compared.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "SKIPPED breaking changes: $1" >&2
  exit 0
}

commit() { git rev-parse --quiet --verify "$1^{commit}"; }

# Where this branch left main; on main itself, or where main is not known, the present commit.
landed() {
  local main
  for main in origin/main main; do
    git merge-base HEAD "$main" 2>/dev/null && return
  done
  commit HEAD
}

# The earlier contracts, newest first, as commits.
earlier() {
  local tip=$1 start
  if start=$(git describe --tags --match 'v*' --abbrev=0 "$tip" 2>/dev/null); then
    start=$(commit "$start")
  else
    start=$(git log --first-parent -1 --format=%H --grep='^Breaking-Contract: .' "$tip" -- proto)
  fi
  git log --first-parent --format=%H "${start:+$start..}$tip" -- proto
  [ -z "$start" ] || echo "$start"
}

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT

if [ -n "${CONTRACT_BASE:-}" ]; then
  bases=$(commit "$CONTRACT_BASE")
else
  tip=$(landed) || skip "there is no commit here to compare with."
  bases=$(earlier "$tip")
fi

declare -A seen=()
broken=()
for base in $bases; do
  tree=$(git rev-parse --quiet --verify "$base:proto") || continue
  [ -z "${seen[$tree]:-}" ] || continue
  seen[$tree]=1
  mkdir "$before/$base"
  git archive "$base" buf.yaml proto | tar -x -C "$before/$base"
  buf breaking --against "$before/$base" || broken+=("${base:0:12}")
done

[ "${#seen[@]}" -gt 0 ] || skip "no earlier commit here has a contract."
if [ "${#broken[@]}" -gt 0 ]; then
  echo "The contract breaks callers of commit ${broken[*]} (above)." >&2
  exit 1
fi
echo "No breaking change since any of ${#seen[@]} earlier contracts."
