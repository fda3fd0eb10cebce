package program

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/pratique-sec/pratique/pkg/service"
)

// Common is the part of a configuration that every process has.
type Common struct {
	Root     string // first token of every subject, so that several installations can share one NATS
	Replicas int    // of each stream and bucket: 1 on one node, 3 on three
	MaxBytes int64  // size limit of each large stream and bucket; NATS reserves some 12 times this, and 6 GiB
	// AckWait is how long a message may go without a sign of life of who works on it before somebody else
	// gets it. It takes effect where a consumer is made: at the first start of whoever makes them.
	AckWait time.Duration
	NATS    service.NATSConfig
	Admin   Admin
	Log     Log
	Trace   Trace
	Drain   time.Duration // how long the process may take to finish or hand back what it holds
}

// Admin is where health and metrics are served, to whoever reaches it.
type Admin struct{ Listen string }

// Trace says where spans go.
type Trace struct {
	Endpoint string  // OTLP over HTTP, as in http://collector:4318; "" for nowhere
	Ratio    float64 // of the traces that begin here and are kept, above 0 and up to 1; 0 is all of them
}

// Defaults are a single installation's, beside its NATS.
func Defaults() Common {
	return Common{
		Root: "pratique", Replicas: 1, MaxBytes: 4 << 30, AckWait: 30 * time.Second,
		NATS:  service.NATSConfig{URL: "nats://127.0.0.1:4222"},
		Admin: Admin{Listen: ":8421"},
		Log:   Log{Format: "text"},
		Drain: 25 * time.Second, // below the 30 s that Kubernetes grants
	}
}

// Shared is the Common itself, for whoever holds the struct that embeds it.
func (c *Common) Shared() *Common { return c }

// Validate names every field that is wrong.
func (c *Common) Validate() error {
	var errs []error
	if c.Drain <= 0 {
		errs = append(errs, fmt.Errorf("drain: %v is no time to finish in; 25s, say", c.Drain))
	}
	if c.AckWait < time.Second {
		errs = append(errs, fmt.Errorf("ackWait: %v; want 1s at least, and more than a process may be held up; 30s, say", c.AckWait))
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas: %d; NATS takes 1 to 5", c.Replicas))
	}
	if c.MaxBytes < 64<<20 {
		errs = append(errs, fmt.Errorf("maxBytes: %d; give each stream 64 MiB (67108864) at least", c.MaxBytes))
	}
	return errors.Join(errs...)
}

// Validate names every field that is wrong.
func (a Admin) Validate() error {
	if _, _, err := net.SplitHostPort(a.Listen); err != nil {
		return fmt.Errorf("listen: %q: want host:port, or :port for every address", a.Listen)
	}
	return nil
}

// Validate names every field that is wrong.
func (t Trace) Validate() error {
	var errs []error
	if u, err := url.Parse(t.Endpoint); t.Endpoint != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, errors.New("endpoint: want a URL as in http://collector:4318"))
	} else if err == nil && u.User != nil {
		errs = append(errs, errors.New("endpoint: holds a password, which logs would show"))
	}
	if t.Ratio < 0 || t.Ratio > 1 {
		errs = append(errs, fmt.Errorf("ratio: %v; want a number from 0 to 1", t.Ratio))
	}
	return errors.Join(errs...)
}
