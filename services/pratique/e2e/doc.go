// Package e2e tests the whole pipeline in one process: real services over an embedded NATS server, a real
// registry that notifies, the real Trivy library. It holds nothing else.
package e2e
