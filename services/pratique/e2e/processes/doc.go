// Package processes runs the system for tests as its operators do: each replica of each service a process
// of its own, beside a nats-server and a redis-server, every one of which can be killed, frozen, drained
// and started again. Nothing of it outlives the test, however the test ends (on Linux).
package processes
