//go:build tools

// Package tools pins the gRPC tools that the tests run: their versions in go.mod, their contents in go.sum.
package tools

import (
	_ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
	_ "github.com/grpc-ecosystem/grpc-health-probe"
)
