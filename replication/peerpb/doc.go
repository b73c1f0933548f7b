// Package peerpb holds the messages of peer.proto, members.proto and revocations.proto and their generated code.
package peerpb

// Needs protoc 3.21 or later on the path, protoc-gen-go v1.36.12 and protoc-gen-go-grpc v1.6.0.
//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative peer.proto members.proto revocations.proto
