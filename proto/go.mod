module github.com/pratique-sec/pratique/proto

go 1.26.3

require google.golang.org/protobuf v1.36.12
