// Package e2e tests the whole: the services in one process over an embedded NATS server, or (inBoth) each
// as a process of its own over a real nats-server and Redis; a real registry that notifies, the real Trivy
// library. It holds nothing else.
package e2e
