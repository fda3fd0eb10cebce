package program_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/pkg/program"
)

func TestHealthcheck(t *testing.T) {
	ready := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.WriteHeader(ready)
		_, _ = io.WriteString(w, "nats: not connected")
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	ask := func(listen string) (int, string) {
		var stderr bytes.Buffer
		code := program.Run(t.Context(), identity, program.World{
			Args: []string{"--healthcheck"}, Stdout: io.Discard, Stderr: &stderr,
			Environ: []string{"PRATIQUE_ADMIN_LISTEN=" + listen, "PRATIQUE_FAKE_WORD=one"},
		}, func() program.Configuration { return &fake{Common: program.Defaults()} })
		return code, stderr.String()
	}
	for _, listen := range []string{address, ":" + port, "0.0.0.0:" + port} {
		if code, said := ask(listen); code != 0 {
			t.Errorf("%s: exit code %d: %s", listen, code, said)
		}
	}
	ready = http.StatusServiceUnavailable
	if code, said := ask(address); code != 1 || !strings.Contains(said, "nats: not connected") {
		t.Errorf("unready: exit code %d: %s", code, said)
	}
	server.Close()
	if code, said := ask(address); code != 1 || !strings.Contains(said, "not alive") {
		t.Errorf("dead: exit code %d: %s", code, said)
	}
	if code, said := ask("127.0.0.1:0"); code != 1 || !strings.Contains(said, "admin.listen") {
		t.Errorf("port 0: exit code %d: %s", code, said)
	}
}
