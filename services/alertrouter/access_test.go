package alertrouter_test

import (
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/access/accesstest"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/bus/bustest"
	"github.com/pratique-sec/pratique/pkg/finding"
	"github.com/pratique-sec/pratique/services/alertrouter"
)

// The router does its work with the credentials of its role, dead letters included.
func TestWithItsPermissions(t *testing.T) {
	t.Parallel()
	srv := accesstest.Start(t)
	admin := bustest.On(t, srv.Connect(t, access.Admin), bus.Config{}, bus.Options{})
	b, err := bus.New(srv.Connect(t, access.AlertRouter), bus.Config{Poll: 20 * time.Millisecond, Backoff: 20 * time.Millisecond}, bus.Options{Logger: logger(t)})
	must(t, err)
	h := newHook(t)
	start(t, b, alertrouter.Config{Sweep: 50 * time.Millisecond, Config: file(t, "route:\n  receiver: team\n  "+quick+`
receivers:
- {name: team, webhook_configs: [{url: '`+h.URL+`'}, {url: 'http://127.0.0.1:1', timeout: 1s}]}
`), GiveUp: time.Second})
	publish(t, admin, delta("team/api", "CVE-1", 1, finding.Opened))
	h.last(t, "firing:CVE-1 firing:dead-letter") // of the other receiver
	publish(t, admin, delta("team/api", "CVE-1", 2, finding.Resolved))
	h.knows(t, "dead-letter")
	if v := srv.Violations(); len(v) > 0 {
		t.Errorf("refused: %v", v)
	}
}
