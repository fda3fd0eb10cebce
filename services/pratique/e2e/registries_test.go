package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/breaker"
	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	"github.com/pratique-sec/pratique/pkg/system"
)

// mood is how a registry treats whoever asks. False: it has answered.
type mood func(w http.ResponseWriter, r *http.Request, blob bool) (well bool)

func well(http.ResponseWriter, *http.Request, bool) bool { return true }

func answers(status int, headers ...string) mood {
	return func(w http.ResponseWriter, _ *http.Request, _ bool) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		return false
	}
}

// gone closes each connection without a word.
func gone(http.ResponseWriter, *http.Request, bool) bool {
	panic(http.ErrAbortHandler)
}

// moody is a shelf with moods.
type moody struct {
	*shelf
	host string

	mu   sync.Mutex
	mood mood
	asks int
}

func newMoody(t testing.TB) *moody {
	m := &moody{shelf: newShelf(t), mood: well}
	srv := httptest.NewServer(m)
	t.Cleanup(srv.Close)
	m.host = strings.TrimPrefix(srv.URL, "http://")
	return m
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	mood := m.mood
	m.asks++
	m.mu.Unlock()
	if mood(w, r, strings.Contains(r.URL.Path, "/blobs/")) {
		m.shelf.ServeHTTP(w, r)
	}
}

func (m *moody) becomes(mood mood) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood = mood
}

func (m *moody) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asks
}

// fill puts n images in as many repositories, each with a layer of its own, and answers their names.
func (m *moody) fill(t testing.TB, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range n {
		repository := fmt.Sprintf("trouble/%d", i)
		plain, diffID := archive(t, append([]string{"srv/name", fmt.Sprint(repository)}, bullseye...)...)
		m.image(t, repository, []entry{m.layer(repository, zip(t, plain))}, diffID)
		names[i] = m.host + "/" + repository + ":latest"
	}
	return names
}

// cut sends half of a body and closes the connection. Questions without a body are answered.
func (m *moody) cut(w http.ResponseWriter, r *http.Request, _ bool) bool {
	if r.Method != http.MethodGet || r.URL.Path == "/v2/" {
		return true
	}
	whole := httptest.NewRecorder()
	m.shelf.ServeHTTP(whole, r)
	for k, v := range whole.Header() {
		w.Header()[k] = v
	}
	_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
	panic(http.ErrAbortHandler)
}

// lie sends other bytes of the right length for a blob.
func (m *moody) lie(w http.ResponseWriter, r *http.Request, blob bool) bool {
	if !blob || r.Method != http.MethodGet {
		return true
	}
	whole := httptest.NewRecorder()
	m.shelf.ServeHTTP(whole, r)
	body := whole.Body.Bytes()
	if len(body) > 0 && body[0] == 0x1f { // layers; a config that lies would be noticed before
		body[len(body)-1] ^= 1
	}
	_, _ = w.Write(body)
	return false
}

// quick is a breaker for tests: nobody waits for a minute.
var quick = breaker.Config{
	Pause: 100 * time.Millisecond, MaxPause: 400 * time.Millisecond, ProbeTime: 5 * time.Second,
	MaxRetryAfter: 500 * time.Millisecond, Settle: 500 * time.Millisecond,
}

// notices are all of SYSTEM so far that are about a subject.
func (p *pipeline) notices(subject string) []system.Notice {
	p.t.Helper()
	const end = "end of the notices"
	mark := system.Notice{ID: fmt.Sprint(end, time.Now().UnixNano()), Kind: "test", Subject: end}
	if err := p.bus.PublishSystem(p.t.Context(), mark); err != nil {
		p.t.Fatal(err)
	}
	enough := errors.New("enough")
	var out []system.Notice
	err := p.bus.WatchSystem(p.t.Context(), 1, func(_ uint64, n system.Notice) error {
		switch {
		case n.ID == mark.ID:
			return enough
		case n.Subject == subject:
			out = append(out, n)
		}
		return nil
	})
	if !errors.Is(err, enough) {
		p.t.Fatal(err)
	}
	return out
}

func kinds(notices []system.Notice) string {
	var out []string
	for _, n := range notices {
		out = append(out, string(n.Kind))
	}
	return strings.Join(out, " ")
}

// TestRegistryInTrouble: its images are late and nothing worse, it is left alone and told of once, and
// those of another registry do not notice.
func TestRegistryInTrouble(t *testing.T) {
	const n = 12
	for name, c := range map[string]struct {
		mood   func(m *moody) mood
		paused bool
	}{
		"429":               {func(*moody) mood { return answers(http.StatusTooManyRequests, "Retry-After", "1") }, true},
		"503":               {func(*moody) mood { return answers(http.StatusServiceUnavailable) }, true},
		"gone for a minute": {func(*moody) mood { return gone }, true},
		"cuts connections":  {func(m *moody) mood { return m.cut }, false}, // now and then it answers
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, other := newMoody(t), newShelf(t)
			names := m.fill(t, n)
			plain, diffID := archive(t, bullseye...)
			other.image(t, "well/app", []entry{other.layer("well/app", zip(t, plain))}, diffID)
			p := start(t, options{silent: true, planners: 2, scanners: 2, hosts: []string{m.host, other.host}, database: bullseyeDatabase(t), now: time.Now, breaker: quick})
			m.becomes(c.mood(m))
			ids := make([]string, n)
			for i, name := range names {
				ids[i] = p.request(name)
			}
			if c.paused {
				p.until("the registry is paused", func() bool { return kinds(p.notices(m.host)) == "registry-paused" })
			}
			// The other one's image is judged meanwhile.
			if got := p.decided(p.request(other.host + "/well/app:latest")); got.Outcome != report.Findings {
				t.Errorf("beside a registry in trouble: %+v", got)
			}
			if c.paused {
				// It is asked by probes alone: far less often than its images would.
				before, since := m.asked(), time.Now()
				<-time.After(2 * time.Second)
				if asked, most := m.asked()-before, 4*int(time.Since(since)/quick.Pause); asked > most {
					t.Errorf("asked %d times while it is paused", asked)
				}
			}
			for _, id := range ids {
				if f, err := p.bus.Fate(t.Context(), fate.RequestKey(id)); err != nil || f.Stage == fate.Decided {
					t.Errorf("decided while its registry is in trouble: %+v (%v)", f, err)
				}
			}
			m.becomes(well)
			for i, id := range ids {
				if got := p.decided(id); got.Outcome != report.Findings {
					t.Errorf("%s: %+v", names[i], got)
				}
			}
			p.settle()
			if c.paused {
				p.until("it is told that the registry is well again", func() bool {
					return kinds(p.notices(m.host)) == "registry-paused registry-resumed"
				})
			}
			if letters := p.letters("scanner"); len(letters) > 0 {
				t.Errorf("dead letters: %v", letters)
			}
		})
	}
}

// A registry that sends other bytes than it was asked for is not left alone: it answers, and its images
// fail with the reason.
func TestRegistryThatLies(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	names := m.fill(t, 8)
	p := start(t, options{silent: true, hosts: []string{m.host}, database: bullseyeDatabase(t), now: time.Now, breaker: quick})
	m.becomes(m.lie)
	ids := make([]string, len(names))
	for i, name := range names {
		ids[i] = p.request(name)
	}
	for i, id := range ids {
		if got := p.decided(id); got.Outcome != report.Failed || got.Reason != reason.DigestMismatch {
			t.Errorf("%s: %+v", names[i], got)
		}
	}
	p.settle()
	if got := p.notices(m.host); len(got) > 0 {
		t.Errorf("told of the registry: %v", got)
	}
}

// A registry that never comes back: its images fail as unreachable when their time is over, in whatever
// stage they were, and nothing is left of them in the queues.
func TestRegistryIsGoneForGood(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	names := m.fill(t, 10)
	p := start(t, options{silent: true, hosts: []string{m.host}, database: bullseyeDatabase(t), now: time.Now, breaker: quick, giveUp: 4 * time.Second})
	// Half of them are planned already, and wait for their layers.
	m.becomes(func(w http.ResponseWriter, r *http.Request, blob bool) bool {
		layer := blob && r.Method == http.MethodGet && m.isLayer(r)
		return !layer || gone(w, r, blob)
	})
	ids := make([]string, len(names))
	for i, name := range names {
		if i == len(names)/2 {
			p.until("the first half waits for layers", func() bool {
				for _, id := range ids[:i] {
					f, err := p.bus.Fate(t.Context(), fate.RequestKey(id))
					if err != nil || len(f.Images) == 0 {
						return false
					}
				}
				return true
			})
			m.becomes(gone)
		}
		ids[i] = p.request(name)
	}
	for i, id := range ids {
		f := p.over(t.Context(), id)
		code := f.Reason
		if len(f.Images) == 1 {
			code = f.Images[0].Reason
		}
		if code != reason.Unreachable {
			t.Errorf("%s: %+v", names[i], f)
		}
	}
	p.settle()
	if got := kinds(p.notices(m.host)); got != "registry-paused" {
		t.Errorf("told of the registry: %s", got)
	}
	scans := p.scans()
	if len(scans) != len(names) {
		t.Errorf("%d scans of %d images", len(scans), len(names))
	}
}

// isLayer tells that a path is a layer's and not a config's.
func (m *moody) isLayer(r *http.Request) bool {
	whole := httptest.NewRecorder()
	m.shelf.ServeHTTP(whole, r)
	b, err := io.ReadAll(whole.Body)
	return err == nil && len(b) > 0 && b[0] == 0x1f
}

// over waits until a request is decided.
func (p *pipeline) over(ctx context.Context, id string) fate.Fate {
	p.t.Helper()
	f, _ := p.followed(ctx, id)
	return f
}
