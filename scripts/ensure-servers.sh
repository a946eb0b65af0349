#!/usr/bin/env bash
# The tests run against real servers that they start and stop themselves: redis-server (which is also the sentinel), postgres and
# initdb. Where one is missing, root on Debian gets it by apt-get, without a service being started; anybody else is told what to do.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

has() { command -v "$1" >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null; }

missing=()
has redis-server || missing+=(redis-server)
{ has postgres && has initdb; } || missing+=(postgresql)
has ps || missing+=(procps)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  say "The tests need servers that are not installed here: ${missing[*]}"
  say "  Debian, Ubuntu:  sudo apt-get install ${missing[*]}"
  say "  Fedora:          sudo dnf install redis postgresql-server procps-ng"
  say "  macOS:           brew install redis postgresql"
  exit 1
fi

# Debian starts what it installs unless this file says no (101). One that is already here is the machine's own decision.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
# Nor is a database cluster of the system's own wanted.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
  mkdir -p /etc/postgresql-common
  printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
fi

say "Installing ${missing[*]} ..."
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >&2
apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" >&2
for program in redis-server postgres initdb ps; do
  has "$program" || {
    say "$program is still not there after installing ${missing[*]}."
    exit 1
  }
done
