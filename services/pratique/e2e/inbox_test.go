package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// post is one that a receiver of webhooks got.
type post struct {
	from, to time.Time // until it was answered
	key      string    // Idempotency-Key
	group    string
	content  string          // what it tells, in one order
	firing   map[string]bool // ids of findings
}

// inbox is a receiver of Alertmanager's webhooks that takes its time.
type inbox struct {
	t     testing.TB
	delay time.Duration
	mu    sync.Mutex
	posts []post
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its sender was killed
	}
	var m struct {
		GroupKey        string
		TruncatedAlerts int
		Alerts          []struct {
			Status string
			Labels map[string]string
		}
	}
	if err := json.Unmarshal(body, &m); err != nil || m.TruncatedAlerts > 0 {
		i.t.Errorf("a webhook of %d bytes with %d alerts cut off: %v", len(body), m.TruncatedAlerts, err)
	}
	p := post{from: from, key: r.Header.Get("Idempotency-Key"), group: m.GroupKey, firing: map[string]bool{}}
	lines := make([]string, len(m.Alerts))
	for k, a := range m.Alerts {
		lines[k] = fmt.Sprint(a.Status, " ", a.Labels)
		if a.Status == "firing" {
			p.firing[a.Labels["finding"]] = true
		}
	}
	slices.Sort(lines)
	p.content = strings.Join(lines, "\n")
	select {
	case <-time.After(i.delay):
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusOK)
	i.mu.Lock()
	defer i.mu.Unlock()
	p.to = time.Now()
	i.posts = append(i.posts, p)
}

// all posts, in the order in which they were sent.
func (i *inbox) all() []post {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.SortedFunc(slices.Values(i.posts), func(a, b post) int { return a.from.Compare(b.from) })
}

// firing are the findings that fire by what was told last.
func (i *inbox) firing() map[string]bool {
	last := map[string]post{}
	for _, p := range i.all() {
		last[p.group] = p
	}
	all := map[string]bool{}
	for _, p := range last {
		maps.Copy(all, p.firing)
	}
	return all
}

// toldOnce wants nothing told twice for the same state, but for posts whose sender was killed, hung or
// lost NATS before it had noted the answer: those repeat their key. It answers how many did.
func (i *inbox) toldOnce(t testing.TB, alerts int, disturbances []outage) (repeats int) {
	t.Helper()
	byKey, lastOf := map[string]post{}, map[string]post{}
	posts := i.all()
	kills := 0
	for _, o := range disturbances {
		if o.of == "" || strings.HasPrefix(o.of, "alertrouter-") {
			kills++
		}
	}
	for _, p := range posts {
		if p.key == "" {
			t.Error("a post without Idempotency-Key")
		}
		if first, ok := byKey[p.key]; ok {
			repeats++
			if p.content != first.content {
				t.Errorf("two posts of key %s tell different things:\n%s\n\n%s", p.key, first.content, p.content)
			}
			if !slices.ContainsFunc(disturbances, func(o outage) bool {
				return (o.of == "" || strings.HasPrefix(o.of, "alertrouter-")) && o.from.Before(p.from) && o.to.After(first.from)
			}) {
				t.Errorf("key %s was posted at %s and again at %s, and nobody died in between", p.key, first.from.Format(time.StampMilli), p.from.Format(time.StampMilli))
			}
			continue
		}
		byKey[p.key] = p
		if before, ok := lastOf[p.group]; ok && before.content == p.content {
			t.Errorf("%s was told the same under two keys:\n%s", p.group, p.content)
		}
		lastOf[p.group] = p
	}
	if len(posts) > alerts+kills {
		t.Errorf("%d posts of %d alerts with %d kills", len(posts), alerts, kills)
	}
	return repeats
}
