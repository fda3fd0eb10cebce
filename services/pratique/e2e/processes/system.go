package processes

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
)

// Config of a system. Every service needs one replica at least.
type Config struct {
	Programs Programs
	Replicas map[string]int // by service: "scanner"; 1 of what is not named
	Hosts    []string       // registries that may be asked, over plain HTTP
	Receiver string         // URL that alerts are posted to; "" for nobody
	AckWait  time.Duration  // 0: the default, for programs that know no other
	Drain    time.Duration  // 0: the default
}

// System is a running installation.
type System struct {
	NATS, Redis *Process
	Services    []*Process // all replicas of all services
	URL         string     // of NATS
	APIs        []string   // addresses of the replicas of ingest

	redis *redis.Client
	dir   string
	cfg   Config
}

// names of the services, in the order in which they are started.
var names = []string{"layercache", "ingest", "scanner", "psaauditor", "alertrouter"}

// Start runs a system, and ends it with the test. It returns when every process is ready. A redis-server
// must be installed: the test is skipped, and says so, where it is not.
func Start(t testing.TB, cfg Config) *System {
	t.Helper()
	dir, err := os.MkdirTemp("", "pratique-") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &System{cfg: cfg, dir: dir}
	t.Cleanup(func() {
		for _, p := range s.all() {
			p.Kill()
		}
		if t.Failed() {
			t.Logf("logs and configurations of the processes are left in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, part := range []string{"log", "nats"} {
		if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.startRedis(t)
	s.startNATS(t)
	for _, name := range names {
		if !cfg.Programs.Has("pratique-" + name) {
			continue // of a commit in which there was none
		}
		for i := range max(1, cfg.Replicas[name]) {
			s.add(t, name, i)
		}
	}
	for _, p := range s.Services {
		p.AwaitReady(t)
	}
	return s
}

// all processes that there are.
func (s *System) all() []*Process {
	all := append([]*Process{}, s.Services...)
	for _, p := range []*Process{s.Redis, s.NATS} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// Of are the replicas of one service.
func (s *System) Of(service string) []*Process {
	var some []*Process
	for _, p := range s.Services {
		if strings.HasPrefix(p.Name, service+"-") {
			some = append(some, p)
		}
	}
	return some
}

// Connect opens a connection to NATS that lives as long as the test.
func (s *System) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (s *System) process(name, program string, args ...string) *Process {
	return &Process{Name: name, program: program, args: args, Log: filepath.Join(s.dir, "log", name+".log")}
}

func (s *System) write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *System) startNATS(t testing.TB) {
	t.Helper()
	address := FreeAddress(t)
	s.URL = "nats://" + address
	// Limits are reserved; nothing near them is written.
	file := s.write(t, "nats.conf", fmt.Sprintf("listen: %q\nmax_payload: 8MB\njetstream { store_dir: %q, max_file_store: 1TB }\n",
		address, filepath.Join(s.dir, "nats")))
	s.NATS = s.process("nats-server", s.cfg.Programs.Path("nats-server"), "-c", file)
	s.NATS.answer = func() error {
		nc, err := nats.Connect(s.URL, nats.Timeout(time.Second))
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := nc.JetStream()
		if err != nil {
			return err
		}
		_, err = js.AccountInfo()
		return err
	}
	s.begin(t, s.NATS)
}

func (s *System) startRedis(t testing.TB) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: apt-get install redis-server, or the like, to run this test")
	}
	s.Redis = s.process("redis-server", program, "--port", "0", "--unixsocket", s.socket(), "--dir", s.dir,
		"--save", "", "--appendonly", "no", "--daemonize", "no")
	s.redis = redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket()})
	t.Cleanup(func() { _ = s.redis.Close() })
	s.Redis.answer = func() error { return s.redis.Ping(t.Context()).Err() }
	s.begin(t, s.Redis)
}

func (s *System) socket() string { return filepath.Join(s.dir, "redis.sock") }

func (s *System) begin(t testing.TB, p *Process) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.AwaitReady(t)
}

// Flush is FLUSHALL.
func (s *System) Flush(t testing.TB) error {
	return s.redis.FlushAll(t.Context()).Err()
}

// FreeAddress is one that nobody listens at, below the ports that the kernel gives to connections: one of
// those could be taken while the process that it is for is dead.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort())) //nolint:noctx // answers at once
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}
