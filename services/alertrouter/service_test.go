package alertrouter_test

import (
	"testing"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

func TestFiresAndResolves(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{}, bus.Options{Logger: logger(t)})
	h := newHook(t)
	start(t, b, alertrouter.Config{Config: file(t, simple(h))})

	publish(t, b, delta("team/api", "CVE-1", 1, finding.Opened), delta("team/api", "CVE-2", 1, finding.Opened))
	p := h.last(t, "firing:CVE-1 firing:CVE-2")
	if p.Version != "4" || p.Status != "firing" || p.Receiver != "team" || p.Reason != "first notification" || p.Key == "" {
		t.Errorf("payload is %+v", p)
	}
	publish(t, b, delta("team/api", "CVE-1", 2, finding.Resolved))
	p = h.last(t, "firing:CVE-2 resolved:CVE-1")
	if p.Reason != "some alerts resolved" {
		t.Errorf("reason is %q", p.Reason)
	}
	publish(t, b, delta("team/api", "CVE-2", 2, finding.Resolved))
	p = h.last(t, "resolved:CVE-2")
	if p.Status != "resolved" || p.Reason != "all alerts resolved" {
		t.Errorf("payload is %+v", p)
	}
	if n := len(h.all()); n != 3 {
		t.Errorf("%d posts, want 3", n)
	}
}
