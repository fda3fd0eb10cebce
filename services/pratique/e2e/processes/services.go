package processes

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

// Ports between those of well-known services and those of connections.
const firstPort, lastPort = 15_000, 32_000

func nextPort() int { return firstPort + rand.IntN(lastPort-firstPort) }

// add configures and starts one replica.
func (s *System) add(t testing.TB, service string, replica int) {
	t.Helper()
	name := fmt.Sprintf("%s-%d", service, replica)
	admin := FreeAddress(t)
	var y strings.Builder
	fmt.Fprintf(&y, "nats: {url: %q}\nadmin: {listen: %q}\nlog: {level: debug, format: json}\nmaxBytes: %d\n", s.URL, admin, 256<<20)
	if s.cfg.AckWait > 0 {
		fmt.Fprintf(&y, "ackWait: %v\n", s.cfg.AckWait)
	}
	if s.cfg.Drain > 0 {
		fmt.Fprintf(&y, "drain: %v\n", s.cfg.Drain)
	}
	switch service {
	case "ingest":
		api := FreeAddress(t)
		s.APIs = append(s.APIs, api)
		fmt.Fprintf(&y, "ingest: {listen: %q}\n", api)
	case "layercache":
		s.pulls(&y)
		y.WriteString("layercache: {platforms: [linux/amd64, linux/arm64]}\n")
	case "alertrouter":
		fmt.Fprintf(&y, "alertrouter: {config: %q, backoff: 200ms, sweep: 5s}\n", s.write(t, "alertmanager.yml", s.routes()))
	case "scanner":
		s.pulls(&y)
		fmt.Fprintf(&y, "scanner: {dir: %q}\n", filepath.Join(s.dir, name))
	}
	p := s.process(name, s.cfg.Programs.Path("pratique-"+service), "--config", s.write(t, name+".yaml", y.String()))
	p.Admin = admin
	s.Services = append(s.Services, p)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

// routes sends every finding to the receiver, in one group for each asset, soon.
func (s *System) routes() string {
	integration := ""
	if s.cfg.Receiver != "" {
		integration = fmt.Sprintf(", webhook_configs: [{url: %q}]", s.cfg.Receiver)
	}
	return "route: {receiver: all, group_by: [asset], group_wait: 1s, group_interval: 2s, repeat_interval: 24h}\n" +
		"receivers: [{name: all" + integration + "}]\n"
}

// pulls configures what fetches from registries, and keeps facts.
func (s *System) pulls(y *strings.Builder) {
	fmt.Fprintf(y, "redis: {url: %q}\n", "unix://"+s.socket())
	y.WriteString("registries:\n  hosts:\n")
	for _, h := range s.cfg.Hosts {
		fmt.Fprintf(y, "    %q: {plain: true}\n", h)
	}
}
