#!/usr/bin/env bash
# Builds grpcurl and grpc-health-probe, the tools that users bring to a gRPC server, into .cache/bin where Go is installed, so that
# tests can use the real ones. scripts/grpc-tools pins them and all that they are made of. Without Go this says so, and the tests
# that want them say that they were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$PWD/.cache/bin
stamp=$bin/.built-from
wanted=$(cat scripts/grpc-tools/go.{mod,sum} | cksum)

[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0
if ! command -v go >/dev/null; then
  echo "SKIPPED grpcurl and grpc-health-probe: Go is not installed to build them; tests that need them are skipped." >&2
  exit 0
fi

echo "Building grpcurl and grpc-health-probe ..." >&2
mkdir -p "$bin"
tools=(github.com/fullstorydev/grpcurl/cmd/grpcurl github.com/grpc-ecosystem/grpc-health-probe)
if (cd scripts/grpc-tools && go build -mod=readonly -o "$bin/" "${tools[@]}") 2>"$bin/build.log"; then
  printf '%s' "$wanted" >"$stamp"
else
  tail -n 5 "$bin/build.log" >&2
  echo "SKIPPED grpcurl and grpc-health-probe: Go could not build them (above); tests that need them are skipped." >&2
fi
