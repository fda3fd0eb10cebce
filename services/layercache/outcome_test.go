package layercache

import (
	"context"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/event"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/work"
)

func TestSilentRegistryFailsAnImageAfterItsTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	tests := []struct {
		name             string
		code             reason.Code
		received, queued time.Time
		refused          bool
	}{
		{"at once", reason.Unreachable, now, now, false},
		{"just before a day", reason.Unreachable, ago(24*time.Hour - time.Second), ago(24 * time.Hour), false},
		{"after a day", reason.Unreachable, ago(24 * time.Hour), ago(24 * time.Hour), true},
		{"limited for a day", reason.RateLimited, ago(25 * time.Hour), ago(25 * time.Hour), true},
		{"paused for a day", reason.RegistryPaused, ago(25 * time.Hour), ago(25 * time.Hour), true},
		{"an old image's new job", reason.Unreachable, ago(90 * 24 * time.Hour), now, false},
		{"our own trouble is no reason", reason.BusUnavailable, ago(48 * time.Hour), ago(48 * time.Hour), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, r := newMemory(), newShelf()
			r.step = func(context.Context) error { return reason.Retryf(tt.code, "no answer") }
			s := newService(t, m, r)
			s.now = func() time.Time { return now }
			j := work.ImageJob{
				Reference: image.Reference{Host: testHost, Repository: testRepo, Tag: "v1"}, Action: event.Push,
				Lane: work.Push, Origin: work.Origin{Received: tt.received},
			}
			e := reason.Of(s.handleImage(t.Context(), j, bus.Delivery{Queued: tt.queued}))
			if !tt.refused {
				if e.Kind != reason.Retry || e.Code != tt.code || len(m.scans) != 0 {
					t.Errorf("error %v, scans %+v", e, m.scans)
				}
				return
			}
			if e.Kind != reason.Refuse || e.Code != reason.Unreachable {
				t.Errorf("error %v", e)
			}
			if len(m.scans) != 1 || m.scans[0].Outcome != report.Failed || m.scans[0].Reason != reason.Unreachable || m.scans[0].Asset == nil {
				t.Errorf("scans %+v", m.scans)
			}
		})
	}
}

// A refusal that could not be told is no refusal yet: the message comes back.
func TestRefusalIsToldBeforeTheMessageGoes(t *testing.T) {
	m, r := newMemory(), newShelf()
	r.step = func(context.Context) error { return reason.Refusef(reason.Denied, "no") }
	away := true
	m.step = func(context.Context) error {
		if away {
			return reason.Retryf(reason.BusUnavailable, "away")
		}
		return nil
	}
	s := newService(t, m, r)
	j := work.ImageJob{Reference: image.Reference{Host: testHost, Repository: testRepo, Digest: image.DigestOf(nil)}, Action: event.Push, Lane: work.Push}
	if e := reason.Of(s.handleImage(t.Context(), j, bus.Delivery{})); e.Kind != reason.Retry || e.Code != reason.BusUnavailable {
		t.Errorf("error %v", e)
	}
	away = false
	if e := reason.Of(s.handleImage(t.Context(), j, bus.Delivery{})); e.Kind != reason.Refuse || e.Code != reason.Denied {
		t.Errorf("error %v", e)
	}
	if len(m.scans) != 1 || len(m.reports) != 1 || m.reports[0].Reason != reason.Denied {
		t.Errorf("scans %+v, reports %+v", m.scans, m.reports)
	}
}

// A registry whose credentials can not be had is waited for, and not for ever.
func TestCredentialsThatStayAwayEnd(t *testing.T) {
	m, r := newMemory(), newShelf()
	r.step = func(context.Context) error { return reason.Retryf(reason.Denied, "the helper fails") }
	s := newService(t, m, r)
	j := work.ImageJob{
		Reference: image.Reference{Host: testHost, Repository: testRepo, Digest: image.DigestOf(nil)}, Action: event.Push, Lane: work.Push,
		Origin: work.Origin{Received: s.now()},
	}
	if e := reason.Of(s.handleImage(t.Context(), j, bus.Delivery{})); e.Kind != reason.Retry || e.Code != reason.Denied {
		t.Errorf("at first: %v", e)
	}
	j.Origin.Received = s.now().Add(-2 * s.cfg.GiveUp)
	if e := reason.Of(s.handleImage(t.Context(), j, bus.Delivery{})); e.Kind != reason.Refuse || e.Code != reason.Unreachable {
		t.Errorf("after a day: %v", e)
	}
}
