package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json/v2"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// maxManifest is the largest manifest that the registry takes; the distribution specification lets a
// registry refuse larger ones.
const maxManifest = 4 << 20

// Registry is an OCI registry in memory that tells an endpoint about pushes and deletions as CNCF
// Distribution does: an envelope of events by POST, again and again until it is answered with 2xx.
// It is an http.Handler for "/v2/". Unlike Distribution it answers the push only when the
// notification was taken, so that whoever pushed knows that it was.
type Registry struct {
	inner  http.Handler
	notify string
	header http.Header
	client *http.Client
	log    *slog.Logger
	now    func() time.Time
}

// RegistryConfig says where notifications go.
type RegistryConfig struct {
	Notify string      // URL of ingest's endpoint for Distribution
	Header http.Header // sent with each notification: authorization
	Logger *slog.Logger
	Now    func() time.Time
}

// NewRegistry makes an empty registry.
func NewRegistry(cfg RegistryConfig) *Registry {
	return &Registry{
		inner:  registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		notify: cfg.Notify, header: cfg.Header, log: cfg.Logger, now: cfg.Now,
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}},
	}
}

// Close lets go of connections to the endpoint, which would wait for them when it drains.
func (r *Registry) Close() { r.client.CloseIdleConnections() }

// envelope is the body of a notification, as Distribution 3 writes it.
type envelope struct {
	Events []notification `json:"events"`
}

type notification struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    target    `json:"target"`
	Request   request   `json:"request"`
	Actor     struct{}  `json:"actor"`
	Source    source    `json:"source"`
}

type target struct {
	MediaType  string       `json:"mediaType,omitempty"`
	Digest     string       `json:"digest,omitempty"`
	Size       int64        `json:"size,omitempty"`
	Length     int64        `json:"length,omitempty"`
	Repository string       `json:"repository"`
	URL        string       `json:"url,omitempty"`
	Tag        string       `json:"tag,omitempty"`
	References []descriptor `json:"references,omitempty"`
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type request struct {
	ID        string `json:"id"`
	Addr      string `json:"addr"`
	Host      string `json:"host"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent"`
}

type source struct {
	Addr       string `json:"addr"`
	InstanceID string `json:"instanceID"`
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	repository, name, ok := manifestPath(req.URL.Path)
	if !ok || req.Method != http.MethodPut && req.Method != http.MethodDelete {
		r.inner.ServeHTTP(w, req)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxManifest))
	if err != nil {
		http.Error(w, "manifest: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	answer := &heldAnswer{header: http.Header{}, status: http.StatusOK}
	r.inner.ServeHTTP(answer, req)
	if answer.status/100 == 2 {
		if err := r.tell(req, repository, name, body, answer.header.Get("Docker-Content-Digest")); err != nil {
			r.log.ErrorContext(req.Context(), "give up on a notification", "repository", repository, "error", err)
			http.Error(w, "the notification was not taken", http.StatusBadGateway)
			return
		}
	}
	answer.release(w)
}

// manifestPath takes "/v2/<repository>/manifests/<tag or digest>" apart.
func manifestPath(p string) (repository, name string, ok bool) {
	dir, name := path.Split(p)
	repository, found := strings.CutSuffix(strings.TrimSuffix(dir, "/"), "/manifests")
	repository, prefixed := strings.CutPrefix(repository, "/v2/")
	return repository, name, found && prefixed && repository != "" && name != ""
}

func (r *Registry) tell(req *http.Request, repository, name string, manifest []byte, digest string) error {
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	n := notification{
		ID: rand.Text(), Timestamp: r.now().UTC(), Action: "push",
		Target:  target{Repository: repository},
		Request: request{ID: rand.Text(), Addr: req.RemoteAddr, Host: req.Host, Method: req.Method, UserAgent: req.UserAgent()},
		Source:  source{Addr: req.Host, InstanceID: "demo"},
	}
	tagged := !strings.Contains(name, ":")
	if tagged {
		n.Target.Tag = name
	}
	if req.Method == http.MethodDelete {
		n.Action = "delete"
		if !tagged {
			n.Target.Digest = name
		}
	} else {
		n.Target.MediaType = req.Header.Get("Content-Type")
		n.Target.Digest, n.Target.Size, n.Target.Length = digest, int64(len(manifest)), int64(len(manifest))
		n.Target.URL = scheme + "://" + req.Host + "/v2/" + repository + "/manifests/" + digest
		n.Target.References = references(manifest)
	}
	body, err := json.Marshal(envelope{Events: []notification{n}})
	if err != nil {
		return fmt.Errorf("notification: %w", err)
	}
	return r.send(req.Context(), body)
}

// references lists what a manifest lists, as far as it can be read.
func references(manifest []byte) []descriptor {
	var m struct {
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil // the registry took it; a notification can do without
	}
	var all []descriptor
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return append(append(all, m.Layers...), m.Manifests...)
}

// attempts and pause bound how long a push waits for its notification: about 10 s.
const (
	attempts = 8
	pause    = 100 * time.Millisecond
)

func (r *Registry) send(ctx context.Context, body []byte) error {
	var last error
	for n := range attempts {
		if n > 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("notification: %w (last: %w)", ctx.Err(), last)
			case <-time.After(pause << (n - 1)):
			}
		}
		if last = r.post(ctx, body); last == nil {
			return nil
		}
	}
	return fmt.Errorf("notification: %d attempts: %w", attempts, last)
}

func (r *Registry) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.notify, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	answer, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 500)) // decoration of an error
		return fmt.Errorf("%s answered %s: %s", r.notify, answer.Status, text)
	}
	return nil
}

// heldAnswer keeps a short answer until it may go out.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *heldAnswer) Header() http.Header         { return a.header }
func (a *heldAnswer) WriteHeader(status int)      { a.status = status }
func (a *heldAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }

func (a *heldAnswer) release(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // else the client is gone: nobody to tell
}
