package allinone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/pkg/service"
)

const (
	// maxStore is no promise about the disk: streams reserve their limits, and a reservation larger than
	// the free space would keep a laptop from starting. The streams' own limits bound what is written.
	maxStore = 1 << 40
	// syncEvery bounds what a loss of power can take, see ARCHITECTURE.
	syncEvery = time.Second
	natsReady = 30 * time.Second
)

// startNATS runs a server on the state folder, in operator mode like every other: subscribers get credentials
// here, too. Without an address nothing listens: this process talks to it in memory. With one ("127.0.0.1:0")
// others may, who hold credentials.
func startNATS(s *state, address string, log *slog.Logger) (*server.Server, error) {
	if err := s.installation(); err != nil {
		return nil, err
	}
	opts, err := server.ProcessConfigFile(filepath.Join(s.path(accessFolder), access.ServerConfigFile))
	if err != nil {
		return nil, fmt.Errorf("embedded nats: %w", err)
	}
	if err := adoptStreams(s); err != nil {
		return nil, err
	}
	opts.ServerName, opts.NoSigs, opts.DontListen = "pratique", true, true
	opts.StoreDir, opts.SyncInterval = s.path(natsFolder), syncEvery // the folder may have been moved
	opts.JetStreamMaxMemory, opts.JetStreamMaxStore = 64<<20, maxStore
	if address != "" {
		host, port, err := loopback(address)
		if err != nil {
			return nil, err
		}
		opts.DontListen, opts.Host, opts.Port = false, host, port
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded nats: %w", err)
	}
	srv.SetLogger(natsLog{log}, false, false)
	srv.Start()
	if !srv.ReadyForConnections(natsReady) {
		srv.Shutdown()
		return nil, fmt.Errorf("embedded nats: not ready after %v; what it says is in the log", natsReady)
	}
	return srv, nil
}

// adoptStreams moves the streams of a folder that was made before there were accounts to the account that
// holds them now.
func adoptStreams(s *state) error {
	issuer, err := access.ReadIssuer(filepath.Join(s.path(accessFolder), access.SignerFile))
	if err != nil {
		return err
	}
	folder := filepath.Join(s.path(natsFolder), server.JetStreamStoreDir)
	err = os.Rename(filepath.Join(folder, server.DEFAULT_GLOBAL_ACCOUNT), filepath.Join(folder, issuer.Account()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state folder: take over the streams of an earlier release: %w", err)
	}
	return nil
}

// loopback refuses addresses that other machines reach: there is no TLS here.
func loopback(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("nats address %q: want 127.0.0.1:PORT (port 0: any free one)", address)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", 0, fmt.Errorf("nats address %q: only loopback; run a NATS server of your own to be reached from elsewhere", address)
	}
	if port, err = strconv.Atoi(p); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("nats address %q: %q is no port", address, p)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// connect opens this process's connection, in memory.
func connect(s *state, srv *server.Server, health *service.Health, log *slog.Logger) (*nats.Conn, error) {
	nc, err := service.ConnectNATS(service.NATSConfig{Creds: s.creds()}, "pratique", health, log, nats.InProcessServer(srv))
	if err != nil {
		return nil, fmt.Errorf("embedded nats: %w", err)
	}
	return nc, nil
}

// stopNATS closes the store properly, so that the next start need not repair it.
func stopNATS(nc *nats.Conn, srv *server.Server) error {
	nc.Close()
	srv.Shutdown()
	done := make(chan struct{})
	go func() {
		srv.WaitForShutdown()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(natsReady):
		return errors.New("embedded nats: still shutting down; given up")
	}
}

// natsLog hands the server's words to slog. Its notices are about its own start: debug.
type natsLog struct{ log *slog.Logger }

func (l natsLog) say(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "nats server says", "message", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
func (l natsLog) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
func (l natsLog) Warnf(format string, args ...any)   { l.say(slog.LevelWarn, format, args) }
func (l natsLog) Errorf(format string, args ...any)  { l.say(slog.LevelError, format, args) }
func (l natsLog) Fatalf(format string, args ...any)  { l.say(slog.LevelError, format, args) }
func (l natsLog) Debugf(format string, args ...any)  { l.say(slog.LevelDebug, format, args) }
func (l natsLog) Tracef(format string, args ...any)  { l.say(slog.LevelDebug, format, args) }
