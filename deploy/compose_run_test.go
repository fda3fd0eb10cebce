package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/nats-io/nats.go"

	"github.com/pratique-sec/pratique/pkg/access"
	"github.com/pratique-sec/pratique/services/pratique/demodata"
	"github.com/pratique-sec/pratique/services/scanner/advisory/build"
)

// composed is docker-compose.yaml without Docker: each container's process with exactly the environment,
// command, configuration and credentials of the file, but for paths and addresses, which are this machine's.
type composed struct {
	t         *testing.T
	project   *types.Project
	dir       string
	addresses map[string]string // "nats:4222" → "127.0.0.1:31234"
	processes map[string][]*process
	metrics   []string // addresses of /metrics
	commands  map[string]container
}

// container is how one is started.
type container struct {
	fs   *rootfs
	env  []string
	args []string
}

func newComposed(t *testing.T) *composed {
	t.Helper()
	c := &composed{
		t: t, project: composeFile(t), dir: t.TempDir(),
		addresses: map[string]string{}, processes: map[string][]*process{}, commands: map[string]container{},
	}
	for _, address := range []string{"nats:4222", "redis:6379", "registry:5000", "ingest:8420"} {
		c.addresses[address] = "127.0.0.1:" + freePort(t)
	}
	return c
}

// reachable has the names of services in a text replaced by where they listen here.
func (c *composed) reachable(text string) string {
	for name, address := range c.addresses {
		text = strings.ReplaceAll(text, name, address)
	}
	return text
}

// volume is the folder that stands for one.
func (c *composed) volume(name string) string { return filepath.Join(c.dir, "volumes", name) }

// container prepares a service's file system; the replicas of one have nothing in common but volumes.
func (c *composed) container(service string, replica int) container {
	c.t.Helper()
	s := c.project.Services[service]
	root := newRootfs(filepath.Join(c.dir, fmt.Sprintf("%s-%d", service, replica)))
	m := mounts(c.project, s)
	root.mount(c.t, m, c.reachable)
	for target, from := range m {
		if !from.volume {
			continue
		}
		source := c.volume(from.source)
		if from.source == "" { // an anonymous one
			source = c.volume(fmt.Sprintf("%s-%d", service, replica))
		}
		if from.within == "" {
			if err := os.MkdirAll(source, 0o700); err != nil {
				c.t.Fatal(err)
			}
		} else if _, err := os.Stat(filepath.Join(source, from.within)); err != nil {
			c.t.Fatalf("%s: %v", service, err) // Docker would refuse the container, too
		}
		if err := os.Symlink(filepath.Join(source, from.within), root.path(target)); err != nil {
			c.t.Fatal(err)
		}
	}
	var env []string
	for _, v := range environ(s) {
		env = append(env, c.reachable(root.local(v)))
	}
	return container{root, env, root.localAll(s.Command)}
}

func (c *composed) start(service string, replica int, program string, box container) *process {
	c.t.Helper()
	p := start(c.t, fmt.Sprintf("%s-%d", service, replica), box.env, program, box.args...)
	c.processes[service] = append(c.processes[service], p)
	return p
}

// up starts everything, in the order of the file's dependencies, and waits for the health checks.
func (c *composed) up() {
	c.t.Helper()
	t := c.t
	box := c.container("credentials", 0)
	for range 2 { // docker compose up runs it each time
		if _, said, code := run(t, box.env, "pratique", box.args...); code != 0 {
			t.Fatalf("credentials: exit code %d: %s", code, said)
		}
	}
	c.nats()
	c.redis()
	c.registry()
	type started struct {
		p     *process
		env   []string
		check []string
	}
	var all []started
	for _, service := range services {
		replicas := 1
		if d := c.project.Services[service].Deploy; d != nil && d.Replicas != nil {
			replicas = *d.Replicas
		}
		for i := range replicas {
			box := c.container(service, i)
			admin := "127.0.0.1:" + freePort(t)
			c.metrics = append(c.metrics, admin)
			// The containers have an address each; processes of one machine need ports of their own.
			box.env = append(box.env, "PRATIQUE_ADMIN_LISTEN="+admin)
			if service == "ingest" {
				box.env = append(box.env, "PRATIQUE_INGEST_LISTEN="+c.addresses["ingest:8420"])
			}
			p := c.start(service, i, program(t, "pratique-"+service), box)
			all = append(all, started{p, box.env, c.project.Services[service].HealthCheck.Test})
		}
	}
	for _, s := range all {
		until(t, "health check of "+s.p.name, s.p, func() error {
			if _, said, code := run(t, s.env, filepath.Base(s.check[1]), s.check[2:]...); code != 0 {
				return fmt.Errorf("exit code %d: %s", code, said)
			}
			return nil
		})
	}
}

func (c *composed) nats() {
	c.t.Helper()
	box := c.container("nats", 0)
	// What listens in a network of its own gets an address here; the store is in the volume.
	installation := box.fs.path("/etc/nats/installation.conf")
	text := box.fs.local(read(c.t, installation))
	for old, new := range map[string]string{
		"0.0.0.0:4222": c.addresses["nats:4222"], `"/data"`: `"` + c.volume("nats") + `"`,
	} {
		if strings.Count(text, old) > 1 {
			c.t.Fatalf("nats.conf names %s more than once", old)
		}
		text = strings.Replace(text, old, new, 1)
	}
	if err := os.Remove(installation); err != nil {
		c.t.Fatal(err)
	}
	monitor := "127.0.0.1:" + freePort(c.t)
	server := box.fs.path("/etc/nats/server.conf")
	for path, text := range map[string]string{
		installation: text, server: strings.Replace(read(c.t, server), "127.0.0.1:8222", monitor, 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	p := c.start("nats", 0, program(c.t, "nats-server"), box)
	check := c.project.Services["nats"].HealthCheck.Test
	url := strings.Replace(check[len(check)-1], "127.0.0.1:8222", monitor, 1)
	until(c.t, "health check of nats", p, func() error { return get(url) })
}

func (c *composed) redis() {
	c.t.Helper()
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		c.t.Skip("redis-server is not installed: apt-get install redis-server, or the like, to run this test")
	}
	box := c.container("redis", 0)
	host, port, err := net.SplitHostPort(c.addresses["redis:6379"])
	if err != nil {
		c.t.Fatal(err)
	}
	if len(box.args) != 3 || box.args[0] != "sh" || box.args[1] != "-c" {
		c.t.Fatalf("redis is started by %q", box.args)
	}
	box.args = []string{"-c", box.args[2] + " --bind " + host + " --port " + port + " --dir " + c.t.TempDir()}
	box.env = append(box.env, "PATH="+filepath.Dir(redis)+":/usr/bin:/bin")
	p := c.start("redis", 0, "/bin/sh", box)
	check := c.project.Services["redis"].HealthCheck.Test
	script := strings.Replace(box.fs.local(check[1]), "redis-cli", "redis-cli -h "+host+" -p "+port, 1)
	until(c.t, "health check of redis", p, func() error {
		cmd := exec.Command("sh", "-c", script)
		cmd.Env = box.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// registry is CNCF Distribution's own, by the file that the container is given.
func (c *composed) registry() {
	c.t.Helper()
	box := c.container("registry", 0)
	cfg, err := configuration.Parse(strings.NewReader(read(c.t, box.fs.path("/etc/distribution/config.yml"))))
	if err != nil {
		c.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", c.addresses["registry:5000"])
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	server := &http.Server{Handler: handlers.NewApp(ctx, cfg)}
	go func() { _ = server.Serve(listener) }() // until it is closed
	c.t.Cleanup(func() {
		stop()
		_ = server.Close()
	})
}

func get(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// pratique runs the command line as `docker compose run pratique` does.
func (c *composed) pratique(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	box, ok := c.commands["pratique"]
	if !ok {
		box = c.container("pratique", 0)
		c.commands["pratique"] = box
	}
	return run(c.t, append(box.env, "HOME="+c.dir, "TMPDIR="+c.dir), "pratique", args...)
}

// push does what docker push localhost:5000/… does on the machine that the ports are published on.
func (c *composed) push(images []demodata.Image) {
	c.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, c.addresses["registry:5000"])
	}}
	for _, i := range images {
		ref, err := name.NewTag("localhost:5000/" + i.Name())
		if err == nil && i.Index != nil {
			err = remote.WriteIndex(ref, i.Index, remote.WithTransport(transport))
		} else if err == nil {
			err = remote.Write(ref, i.Image, remote.WithTransport(transport))
		}
		if err != nil {
			c.t.Fatalf("push %s: %v", i.Name(), err)
		}
	}
}

// database writes a Trivy DB of the demo's advisories.
func (c *composed) database() string {
	c.t.Helper()
	open := func(name string) io.Reader {
		b, err := fs.ReadFile(demodata.Advisories(), name)
		if err != nil {
			c.t.Fatal(err)
		}
		return bytes.NewReader(b)
	}
	dir, now := c.t.TempDir(), time.Now()
	if err := build.Build(c.t.Context(), dir, open("adv.jsonl"), open("vuln.jsonl"), build.Meta{UpdatedAt: now, NextUpdate: now.AddDate(0, 0, 1)}); err != nil {
		c.t.Fatal(err)
	}
	return dir
}

// The compose file as its user runs it: up, a database, pushes, findings, down.
func TestComposeRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts every program; leave -short away")
	}
	c := newComposed(t)
	c.up()

	if _, said, code := c.pratique("db", "load", c.database()); code != 0 {
		t.Fatalf("db load: exit code %d: %s", code, said)
	}
	images, err := demodata.Images()
	if err != nil {
		t.Fatal(err)
	}
	c.push(images)

	// Every image that the registry told of is decided, under the name that it was pushed as.
	for _, i := range images {
		if i.Artifact {
			continue
		}
		until(t, "evaluation of "+i.Name(), nil, func() error {
			out, said, code := c.pratique("explain", "image", "localhost:5000/"+i.Name(), "-o", "json")
			if code != 0 || !strings.Contains(out, "STAGE_DECIDED") {
				return fmt.Errorf("exit code %d: %s%s", code, out, said)
			}
			return nil
		})
	}
	out, said, code := c.pratique("findings", "list", "-o", "json")
	if code != 0 || !strings.Contains(out, "CVE-") || !strings.Contains(out, "localhost:5000") {
		t.Errorf("findings: exit code %d: %.2000s %s", code, out, said)
	}

	c.asked(t)
	c.audited(t)
	c.seen(t)
	c.crossing(t)
	c.down(t)
}

// asked has somebody with the operator's token ask for a scan by ingest's published port.
func (c *composed) asked(t *testing.T) {
	token := strings.TrimSpace(read(t, "compose/operator-token"))
	for secret, want := range map[string]int{token: http.StatusAccepted, "": http.StatusUnauthorized, strings.TrimSpace(read(t, "compose/registry-token")): http.StatusForbidden} {
		req, err := http.NewRequest(http.MethodPost, "http://"+c.addresses["ingest:8420"]+"/v1/scans", strings.NewReader(`{"reference":"localhost:5000/team-x/none:1"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want {
			t.Errorf("scan with token %q: %s, want %d: %s", secret, resp.Status, want, body)
		}
	}
}

// audited has a cluster's manifests judged.
func (c *composed) audited(t *testing.T) {
	req, err := http.NewRequest(http.MethodPost, "http://"+c.addresses["ingest:8420"]+"/v1/manifests?cluster=prod",
		strings.NewReader("apiVersion: v1\nkind: Pod\nmetadata: {name: open, namespace: team-a}\nspec: {hostNetwork: true, containers: [{name: c, image: x}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/yaml")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(read(t, "compose/operator-token")))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("manifests: %s", resp.Status)
	}
	until(t, "findings of class psa", nil, func() error {
		out, said, code := c.pratique("findings", "list", "-o", "json")
		if code != 0 || !strings.Contains(out, "hostNetwork") {
			return fmt.Errorf("exit code %d: %s", code, said)
		}
		return nil
	})
}

// seen checks that every metric that rules and autoscalers ask for is shown by some process.
func (c *composed) seen(t *testing.T) {
	shown := map[string]bool{}
	until(t, "metrics that deploy/prometheus and autoscalers ask for", nil, func() error {
		for _, address := range c.metrics {
			resp, err := http.Get("http://" + address + "/metrics")
			if err != nil {
				return err
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(body)) {
				if series, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
					metric, _, _ := strings.Cut(series, "{")
					shown[metric] = true
				}
			}
		}
		var missing []string
		for _, metric := range askedFor(t) {
			if !shown[metric] {
				missing = append(missing, metric)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("no process shows %v", missing)
		}
		return nil
	})
}

// crossing: with the credentials that a container is given, the server refuses what belongs to another.
func (c *composed) crossing(t *testing.T) {
	for service, subjects := range map[string][]string{
		"ingest":      {"pratique.work.push.image.x", "pratique.finding.v1.x", "$JS.API.STREAM.DELETE.EVENTS"},
		"layercache":  {"pratique.event.image.x.push", "pratique.finding.v1.x", "$O.vulndb.C.x"},
		"scanner":     {"pratique.event.image.x.push", "$KV.tracks.x", "$JS.API.STREAM.CREATE.MINE"},
		"psaauditor":  {"pratique.finding.v1.vuln.x", "pratique.work.push.image.x", "$KV.images.x"},
		"alertrouter": {"pratique.finding.v1.x", "pratique.event.image.x.push", "$KV.settings.vulndb"},
	} {
		file := c.container(service, 99).fs.path("/etc/pratique/nats.creds")
		creds, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		inbox, err := access.InboxOf(creds)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect("nats://"+c.addresses["nats:4222"], nats.UserCredentials(file), nats.CustomInboxPrefix(inbox),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // they are what is looked for
		if err != nil {
			t.Fatalf("%s: %v", service, err)
		}
		for _, subject := range subjects {
			if err := nc.Publish(subject, nil); err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := nc.LastError(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("Permissions Violation for Publish to %q", subject)) {
				t.Errorf("%s may publish on %s", service, subject)
			}
		}
		nc.Close()
	}
	if nc, err := nats.Connect("nats://" + c.addresses["nats:4222"]); err == nil {
		nc.Close()
		t.Error("somebody without credentials is let in")
	}
}

// down ends every service as docker compose down does; and none was refused what it needs.
func (c *composed) down(t *testing.T) {
	for _, service := range slices.Backward(services) {
		grace := time.Duration(*c.project.Services[service].StopGracePeriod)
		for _, p := range c.processes[service] {
			if code, err := p.end(grace); err != nil || code != 0 {
				t.Errorf("%s: exit code %d within %v of SIGTERM: %v", p.name, code, grace, err)
			}
			for line := range strings.Lines(read(t, p.log)) {
				var entry map[string]any
				if err := json.Unmarshal([]byte(line), &entry); err != nil {
					t.Errorf("%s logs no JSON, which it is told to: %s", p.name, line)
				}
				if strings.Contains(strings.ToLower(line), "permissions violation") {
					t.Errorf("%s needs what its credentials do not allow: %s", p.name, line)
				}
				if strings.Contains(line, "change-me") {
					t.Errorf("%s logs a secret: %s", p.name, line)
				}
			}
		}
	}
}
