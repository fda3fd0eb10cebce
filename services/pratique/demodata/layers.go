package demodata

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json/v2"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// file is one file of a layer. Layers list theirs in the order of the archive.
type file struct {
	path string // without a leading slash
	mode int64
	body []byte
}

// layer is a layer and the line of the recipe that made it.
type layer struct {
	v1.Layer
	createdBy string
}

// newLayer packs files into a gzip layer whose digest depends on them alone.
func newLayer(createdBy string, files ...file) (layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	dirs := map[string]bool{".": true}
	for _, f := range files {
		var missing []string
		for d := path.Dir(f.path); !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
			missing = append(missing, d)
		}
		for i := len(missing) - 1; i >= 0; i-- {
			h := &tar.Header{Typeflag: tar.TypeDir, Name: missing[i] + "/", Mode: 0o755, ModTime: Built, Format: tar.FormatPAX}
			if err := w.WriteHeader(h); err != nil {
				return layer{}, fmt.Errorf("demodata: layer %q: %w", createdBy, err)
			}
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.body)), ModTime: Built, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return layer{}, fmt.Errorf("demodata: layer %q: %w", createdBy, err)
		}
		if _, err := w.Write(f.body); err != nil {
			return layer{}, fmt.Errorf("demodata: layer %q: %w", createdBy, err)
		}
	}
	if err := w.Close(); err != nil {
		return layer{}, fmt.Errorf("demodata: layer %q: %w", createdBy, err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }
	l, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return layer{}, fmt.Errorf("demodata: layer %q: %w", createdBy, err)
	}
	return layer{l, createdBy}, nil
}

func osRelease(id, name, version string) file {
	return file{"etc/os-release", 0o644, fmt.Appendf(nil, "ID=%s\nNAME=%q\nVERSION_ID=%q\nPRETTY_NAME=%q\n", id, name, version, name+" "+version)}
}

// bookworm is Debian 12 at a point release: "12.11", "12.15".
func bookworm(release string) (layer, error) {
	status, err := read("debian/bookworm-" + release + ".status")
	if err != nil {
		return layer{}, err
	}
	return newLayer("ADD debian-"+release+"-rootfs.tar.gz /",
		file{"etc/debian_version", 0o644, []byte(release + "\n")},
		osRelease("debian", "Debian GNU/Linux", "12"),
		file{"var/lib/dpkg/status", 0o644, status},
	)
}

// distroless is a base without a package manager: each package has a file of its own.
func distroless(release string, packages ...string) (layer, error) {
	status, err := read("debian/bookworm-" + release + ".status")
	if err != nil {
		return layer{}, err
	}
	files := []file{
		{"etc/debian_version", 0o644, []byte(release + "\n")},
		osRelease("debian", "Distroless", "12"),
	}
	for _, p := range packages {
		_, rest, ok := strings.Cut("\n\n"+string(status), "\n\nPackage: "+p+"\n")
		if !ok {
			return layer{}, fmt.Errorf("demodata: Debian %s has no package %q here", release, p)
		}
		stanza, _, _ := strings.Cut(rest, "\n\n")
		files = append(files, file{"var/lib/dpkg/status.d/" + p, 0o644, []byte("Package: " + p + "\n" + stanza + "\n")})
	}
	return newLayer("bazel build //base:static_root_amd64_debian12", files...)
}

// alpine is Alpine at "3.4" or "3.10".
func alpine(release, patch string) (layer, error) {
	installed, err := read("alpine/" + release + ".installed")
	if err != nil {
		return layer{}, err
	}
	return newLayer("ADD alpine-minirootfs-"+patch+"-x86_64.tar.gz /",
		file{"etc/alpine-release", 0o644, []byte(patch + "\n")},
		osRelease("alpine", "Alpine Linux", patch),
		file{"lib/apk/db/installed", 0o644, installed},
	)
}

// nodeModules installs packages named "lodash@4.17.4".
func nodeModules(packages ...string) (layer, error) {
	var files []file
	for _, p := range packages {
		b, err := read("npm/" + p + ".json")
		if err != nil {
			return layer{}, err
		}
		name, _, _ := strings.Cut(p, "@")
		files = append(files, file{"srv/app/node_modules/" + name + "/package.json", 0o644, b})
	}
	return newLayer("RUN npm ci --omit=dev", files...)
}

// sitePackages installs distributions named "PyYAML-5.3.1".
func sitePackages(distributions ...string) (layer, error) {
	var files []file
	for _, d := range distributions {
		b, err := read("python/" + d + ".METADATA")
		if err != nil {
			return layer{}, err
		}
		files = append(files, file{"opt/venv/lib/python3.11/site-packages/" + d + ".dist-info/METADATA", 0o644, b})
	}
	return newLayer("RUN pip install -r requirements.txt", files...)
}

// goProgram installs a Go program at a version, built for an architecture.
func goProgram(version, architecture string) (layer, error) {
	b, err := read("go/api-" + version + ".txt")
	if err != nil {
		return layer{}, err
	}
	machine, info := elf.EM_X86_64, string(b)
	if architecture == "arm64" {
		machine = elf.EM_AARCH64
		info = strings.NewReplacer("GOARCH=amd64", "GOARCH=arm64", "GOAMD64=v1", "GOARM64=v8.0").Replace(info)
	}
	program, err := goBinary(machine, info)
	if err != nil {
		return layer{}, err
	}
	return newLayer("COPY api /usr/local/bin/api", file{"usr/local/bin/api", 0o755, program})
}

// program is an application's own layer: private to its image, without packages.
func program(name, version string) (layer, error) {
	b, err := json.Marshal(map[string]string{"service": name, "release": version}, json.Deterministic(true))
	if err != nil {
		return layer{}, fmt.Errorf("demodata: %w", err)
	}
	return newLayer("COPY . /srv/app", file{"srv/app/release.json", 0o644, append(b, '\n')})
}
