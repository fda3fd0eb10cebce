package deploy_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/pratique-sec/pratique/pkg/access"
)

// composeFile loads docker-compose.yaml, the tools' profile included, by the library of docker compose, which
// refuses keys that it does not know.
func composeFile(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yaml")}, cli.WithDefaultProfiles("*"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("docker-compose.yaml: %v", err)
	}
	return p
}

// environ is what a container's process finds.
func environ(s types.ServiceConfig) []string {
	var all []string
	for _, key := range sorted(s.Environment) {
		if v := s.Environment[key]; v != nil {
			all = append(all, key+"="+*v)
		}
	}
	return all
}

// container is what is mounted into one, by the path there.
type mounted struct {
	source string // file or folder of this machine, or name of a volume
	within string // of the volume
	volume bool
}

func mounts(p *types.Project, s types.ServiceConfig) map[string]mounted {
	all := map[string]mounted{}
	for _, v := range s.Volumes {
		m := mounted{source: v.Source, volume: v.Type == types.VolumeTypeVolume}
		if v.Volume != nil {
			m.within = v.Volume.Subpath
		}
		all[v.Target] = m
	}
	for _, secret := range s.Secrets {
		target := secret.Target
		if target == "" {
			target = "/run/secrets/" + secret.Source
		}
		all[target] = mounted{source: p.Secrets[secret.Source].File}
	}
	return all
}

// holds tells whether a path of a container is mounted, itself or a folder above.
func holds[V any](mounts map[string]V, p string) bool {
	for ; p != "/"; p = path.Dir(p) {
		if _, ok := mounts[p]; ok {
			return true
		}
	}
	return false
}

func TestComposeServices(t *testing.T) {
	p := composeFile(t)
	d, err := readDockerfile()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range services {
		t.Run(name, func(t *testing.T) {
			s, ok := p.Services[name]
			if !ok {
				t.Fatal("docker-compose.yaml does not run it")
			}
			m := mounts(p, s)
			fs := newRootfs(t.TempDir())
			fs.mount(t, m, func(text string) string { return text })
			got := accepted(t, name, fs.localAll(environ(s)))

			for at, path := range got.absolute() {
				if !holds(m, fs.container(path)) {
					t.Errorf("%s is %s, which is not mounted", at, path)
				}
			}
			creds := m[fs.container(got.at("nats.creds"))]
			if creds.within != "installation/"+access.CredsFile(access.Role(name)) {
				t.Errorf("nats.creds are %q, mounted there is %+v", fs.container(got.at("nats.creds")), creds)
			}
			for at, want := range map[string]string{"nats.url": "nats", "redis.url": "redis"} {
				if u := got.at(at); u != "" && !reaches(p, u, want) {
					t.Errorf("%s is %s, which is no service of the compose file", at, u)
				}
			}
			ports := got.ports(name)
			for _, published := range s.Ports {
				if fmt.Sprint(published.Target) != ports["http"] {
					t.Errorf("port %d is published, %v are listened on", published.Target, ports)
				}
				if published.HostIP != "127.0.0.1" {
					t.Errorf("port %s is published to others", published.Published)
				}
			}
			if grace := time.Duration(*s.StopGracePeriod); grace < got.duration(t, "drain")+afterEnd {
				t.Errorf("stop_grace_period is %v, the drain %s", grace, got.at("drain"))
			}

			target := d.target(t, s.Build.Target)
			if s.Build.Dockerfile != "deploy/Dockerfile" || target.entrypoint[0] != "/pratique-"+name {
				t.Errorf("image is built from %s, target %s", s.Build.Dockerfile, s.Build.Target)
			}
			if s.User != target.user {
				t.Errorf("runs as %s, the image as %s", s.User, target.user)
			}
			health := s.HealthCheck.Test
			if len(health) != 3 || health[0] != "CMD" || health[1] != target.entrypoint[0] || !slices.Contains(flags(t, "pratique-"+name), health[2]) {
				t.Errorf("health check %v; the image holds %v", health, target.copied)
			}
		})
	}
}

// reaches tells whether a URL leads to the port of a service of the compose file.
func reaches(p *types.Project, url, service string) bool {
	_, ok := p.Services[service]
	return ok && regexp.MustCompile(`^[a-z]+://`+service+`:\d+(/|$)`).MatchString(url)
}

// Nothing in a container can do more than it must.
func TestComposeIsRestricted(t *testing.T) {
	for name, s := range composeFile(t).Services {
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || len(s.CapAdd) > 0 || s.Privileged ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read_only %v, cap_drop %v, cap_add %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.CapAdd, s.SecurityOpt)
		}
		if root := s.User == "" || strings.HasPrefix(s.User, "0"); root && name != "registry" {
			t.Errorf("%s: runs as %q", name, s.User)
		}
		if len(s.Profiles) == 0 && name != "credentials" && (s.HealthCheck == nil || len(s.HealthCheck.Test) == 0) {
			t.Errorf("%s: has no health check", name)
		}
	}
}

// Files that are mounted are there, and the secrets that both sides hold are the same.
func TestComposeFiles(t *testing.T) {
	p := composeFile(t)
	used := map[string]bool{}
	for name, s := range p.Services {
		for target, m := range mounts(p, s) {
			if m.volume {
				continue
			}
			info, err := os.Stat(m.source)
			if err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s: %s is mounted at %s: %v", name, m.source, target, err)
			}
			used[filepath.Base(m.source)] = true
		}
	}
	files, err := os.ReadDir("compose")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !used[f.Name()] {
			t.Errorf("compose/%s is not used", f.Name())
		}
	}
	for name, s := range p.Secrets {
		if !strings.HasPrefix(read(t, s.File), "change-me") {
			t.Errorf("%s does not say that it is everybody's", name)
		}
	}
	if token := strings.TrimSpace(read(t, "compose/registry-token")); !strings.Contains(read(t, "compose/registry.yaml"), "[Bearer "+token+"]") {
		t.Error("compose/registry.yaml sends another token than compose/registry-token")
	}
}

// The commands that the file's head shows are ones that the program has.
func TestComposeCommands(t *testing.T) {
	text := read(t, filepath.Join(root, "docker-compose.yaml"))
	for _, m := range regexp.MustCompile(`docker compose run --rm (?:--volume \S+ )?pratique ([a-z]+(?: [a-z]+)?)`).FindAllStringSubmatch(text, -1) {
		if _, said, code := run(t, nil, "pratique", append(strings.Fields(m[1]), "--help")...); code != 0 {
			t.Errorf("pratique %s: %s", m[1], said)
		}
	}
	for name, s := range composeFile(t).Services {
		if name != "credentials" {
			continue
		}
		help, _, _ := run(t, nil, "pratique", "credentials", "init", "--help")
		for _, arg := range s.Command {
			if flag, _, _ := strings.Cut(arg, "="); strings.HasPrefix(flag, "--") && !strings.Contains(help, flag) {
				t.Errorf("pratique credentials init knows no %s", flag)
			}
		}
	}
}
