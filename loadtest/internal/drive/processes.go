package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/loadtest/internal/machine"
	"github.com/pratique-sec/pratique/pkg/bus"
	"github.com/pratique-sec/pratique/pkg/vulndb"
	"github.com/pratique-sec/pratique/services/pratique/allinone"
	"github.com/pratique-sec/pratique/services/scanner/oracletest/peer"
)

// Programs is a folder of the services' binaries.
type Programs string

// Services in the order in which they are started: layercache makes the streams that all others wait for.
var services = []string{"layercache", "ingest", "scanner", "psaauditor", "alertrouter"}

// Build builds the services' programs of this repository into dir.
func Build(ctx context.Context, dir string) (Programs, error) {
	workspace, err := peer.Find("go.work")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, s := range services {
		args = append(args, "./services/"+s+"/cmd/pratique-"+s)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Dir(workspace)
	// The flags of every build of ours, or Trivy is compiled again.
	cmd.Env = append(os.Environ(), "GOEXPERIMENT=jsonv2", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the services: %w\n%s", err, msg)
	}
	return Programs(dir), nil
}

// Cluster is one process of each service, and as many scanners as are asked for, around a NATS server in
// this process.
type Cluster struct {
	Embedded // Redis is not used
	Programs Programs
	Scanners int
	// Scanner is further configuration of scanners: lines of YAML below "scanner:", as in "layerSlots: 1".
	Scanner []string

	processes map[string]*process // by name, "scanner-1"
	door      string              // address of ingest
}

// process is one that was started.
type process struct {
	cmd   *exec.Cmd
	admin string // address of its health and metrics
	said  lockedBuffer
	ended chan struct{} // closed when it has
}

// lockedBuffer keeps what a process says, for when it ends badly.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const maxSaid = 64 << 10 // bytes that are kept of what a process says

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(b[:min(len(b), max(0, maxSaid-l.b.Len()))])
	return len(b), nil
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Run starts the processes, calls body when all of them are ready, and stops them.
func (c *Cluster) Run(ctx context.Context, body func(context.Context, *System) error) (err error) {
	server, err := machine.NATS(filepath.Join(c.Dir, "nats"))
	if err != nil {
		return err
	}
	defer server.Stop()
	c.processes = map[string]*process{}
	defer c.stop()
	var names []string
	for _, s := range services {
		if s != "scanner" {
			names = append(names, s)
		}
	}
	for n := range c.Scanners {
		names = append(names, fmt.Sprintf("scanner-%d", n+1))
	}
	for _, n := range names {
		if err := c.start(ctx, server.URL, n); err != nil {
			return err
		}
	}
	nc, err := nats.Connect(server.URL)
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	defer nc.Close()
	b, err := bus.New(nc, bus.Config{}, bus.Options{Logger: c.Logger})
	if err != nil {
		return err
	}
	if err := c.load(ctx, b); err != nil {
		return err
	}
	if err := c.until(ctx, func() error { return c.ready(ctx) }); err != nil {
		return err
	}
	return Attach(ctx, b, NewDoor("http://"+c.door, ""), body)
}

// load waits for the streams and makes the database the current one.
func (c *Cluster) load(ctx context.Context, b *bus.Bus) error {
	tmp := filepath.Join(c.Dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	if err := c.until(ctx, func() error { return b.Await(ctx) }); err != nil {
		return err
	}
	_, err := allinone.LoadDatabase(ctx, b, vulndb.Vulnerabilities, c.Database, tmp)
	return err
}

// startup bounds the start of all processes, on a busy machine.
const startup = 2 * time.Minute

// until asks again until something holds, unless a process has ended.
func (c *Cluster) until(ctx context.Context, holds func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return nil
		}
		if dead := c.dead(); dead != nil {
			return dead
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// ready asks each process.
func (c *Cluster) ready(ctx context.Context) error {
	for name, p := range c.processes {
		if !peer.Answers(ctx, "http://"+p.admin+"/readyz") {
			return fmt.Errorf("%s is not ready in time", name)
		}
	}
	return nil
}

// dead tells of a process that has ended.
func (c *Cluster) dead() error {
	var errs []error
	for name, p := range c.processes {
		select {
		case <-p.ended:
			errs = append(errs, fmt.Errorf("%s ended: %s\n%s", name, p.cmd.ProcessState, p.said.String()))
		default:
		}
	}
	return errors.Join(errs...)
}

// Peak is the most memory that each process ever held, in bytes, by name.
func (c *Cluster) Peak() (map[string]int64, error) {
	peaks := map[string]int64{}
	for name, p := range c.processes {
		n, err := machine.Peak(p.cmd.Process.Pid)
		if err != nil {
			return nil, errors.Join(err, c.dead())
		}
		peaks[name] = n
	}
	return peaks, nil
}

// stop lets the processes drain, and kills those that do not.
func (c *Cluster) stop() {
	for _, p := range c.processes {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	}
	late := time.After(drain)
	for name, p := range c.processes {
		select {
		case <-p.ended:
		case <-late:
			c.Logger.Warn("killed a process that did not drain", slog.String("process", name))
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
}

const drain = 20 * time.Second

// start starts one process with a configuration file and folders of its own.
func (c *Cluster) start(ctx context.Context, natsURL, name string) error {
	dir := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	service, _, _ := strings.Cut(name, "-")
	admin, err := peer.FreeAddress(ctx)
	if err != nil {
		return err
	}
	text, err := c.configuration(ctx, service, dir, natsURL, admin)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	p := &process{admin: admin, ended: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(string(c.Programs), "pratique-"+service), "--config", file)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // dead tells
		close(p.ended)
	}()
	c.processes[name] = p
	return nil
}

func (c *Cluster) configuration(ctx context.Context, service, dir, natsURL, admin string) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "nats:\n  url: %s\nadmin:\n  listen: %s\nlog:\n  level: warn\n", natsURL, admin)
	switch service {
	case "ingest":
		address, err := peer.FreeAddress(ctx)
		if err != nil {
			return nil, err
		}
		c.door = address
		fmt.Fprintf(&b, "ingest:\n  listen: %s\n", address)
	case "layercache":
		c.registries(&b)
	case "alertrouter":
		// Findings go to nobody: what they cost is the reading and the deciding.
		rules := filepath.Join(dir, "alertmanager.yml")
		if err := os.WriteFile(rules, []byte("route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"), 0o600); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "alertrouter:\n  config: %s\n", rules)
	case "scanner":
		c.registries(&b)
		fmt.Fprintf(&b, "scanner:\n  dir: %s\n", dir)
		for _, line := range c.Scanner {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.Bytes(), nil
}

func (c *Cluster) registries(w io.Writer) {
	fmt.Fprint(w, "registries:\n  hosts:\n")
	for _, h := range c.Hosts {
		fmt.Fprintf(w, "    %q:\n      plain: true\n", h)
	}
}
