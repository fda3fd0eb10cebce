package peer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	rpc "github.com/aquasecurity/trivy/rpc/scanner"
)

// Scans are the Scan calls that clients made: what a caller that knows a server's layers already has to
// say. They are learnt by looking, since the keys in them are the client's secret recipe.
type Scans struct {
	mu  sync.Mutex
	all []*rpc.ScanRequest
}

// Record runs clients against a server and keeps their Scan calls. use gets the URL that clients must be
// given for the server's.
func (s *Server) Record(use func(url string) error) (*Scans, error) {
	target, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("record scans: %w", err)
	}
	scans := &Scans{}
	forward := httputil.NewSingleHostReverseProxy(target)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/Scan") {
			if err := scans.note(r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		forward.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	return scans, use(proxy.URL)
}

// maxScan bounds a recorded request, in bytes: a handful of keys.
const maxScan = 1 << 20

func (s *Scans) note(r *http.Request) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxScan))
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	call := &rpc.ScanRequest{}
	if err := proto.Unmarshal(b, call); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, call)
	return nil
}

// Len is how many there are.
func (s *Scans) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// Client calls a server's RPC and keeps its connection.
type Client struct{ scanner rpc.Scanner }

// Client makes a client.
func (s *Server) Client() Client {
	return Client{rpc.NewScannerProtobufClient(s.URL, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}})}
}

// Scan makes the i-th recorded call for an image that the server has never heard of, of the same layers,
// and returns how many vulnerabilities it has.
func (c Client) Scan(ctx context.Context, s *Scans, i int, artifact, target string) (int, error) {
	s.mu.Lock()
	call := proto.Clone(s.all[i]).(*rpc.ScanRequest)
	s.mu.Unlock()
	call.ArtifactId, call.Target = artifact, target
	answer, err := c.scanner.Scan(ctx, call)
	if err != nil {
		return 0, fmt.Errorf("trivy server: scan %s: %w", target, err)
	}
	n := 0
	for _, r := range answer.GetResults() {
		n += len(r.GetVulnerabilities())
	}
	return n, nil
}
