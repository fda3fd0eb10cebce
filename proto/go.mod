module github.com/pratique-sec/pratique/proto

go 1.26.3

tool google.golang.org/protobuf/cmd/protoc-gen-go

require google.golang.org/protobuf v1.36.12
