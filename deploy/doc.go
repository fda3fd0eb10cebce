// Package deploy is what operators start from: a Dockerfile, a compose file, Kubernetes manifests, rules for
// Prometheus. It has no code but tests, which hold all of it, and the pages under docs that operators read, to
// what the programs accept: the programs are built as the Dockerfile says and asked.
package deploy
