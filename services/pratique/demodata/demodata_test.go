package demodata

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"io/fs"
	"strings"
	"testing"
)

func TestGoBinaryIsReadable(t *testing.T) {
	info, err := read("go/api-1.0.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	b, err := goBinary(elf.EM_AARCH64, string(info))
	if err != nil {
		t.Fatal(err)
	}
	got, err := buildinfo.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got.GoVersion != "go1.26.8" || got.Path != "corp.example/api" {
		t.Errorf("version %q path %q", got.GoVersion, got.Path)
	}
	if want := strings.Count(string(info), "\tdep\t"); len(got.Deps) != want || want < 10 {
		t.Errorf("%d dependencies, want %d", len(got.Deps), want)
	}
}

func TestGoBinaryRefusesOtherText(t *testing.T) {
	for _, s := range []string{"", "go1.26", "path\tx\n"} {
		if _, err := goBinary(elf.EM_X86_64, s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func TestImagesShareLayersAndAreStable(t *testing.T) {
	digests := func() (all []string, distinct int) {
		images, err := Images()
		if err != nil {
			t.Fatal(err)
		}
		blobs := map[string]bool{}
		for _, i := range images {
			if i.Index != nil {
				d, err := i.Index.Digest()
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, i.Name()+"@"+d.String())
				continue
			}
			d, err := i.Image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, i.Name()+"@"+d.String())
			m, err := i.Image.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range m.Layers {
				blobs[l.Digest.String()] = true
			}
		}
		return all, len(blobs)
	}
	first, distinct := digests()
	second, _ := digests()
	if strings.Join(first, "\n") != strings.Join(second, "\n") {
		t.Errorf("digests differ between two builds:\n%s\n%s", first, second)
	}
	// Of single images: debian, node, python, four programs, two alpines, the signature's payload.
	if distinct != 10 {
		t.Errorf("%d distinct blobs, want 10", distinct)
	}
}

func TestRebuiltReplacesWhatImagesHas(t *testing.T) {
	images, err := Images()
	if err != nil {
		t.Fatal(err)
	}
	rebuilt, err := Rebuilt()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, i := range images {
		if i.Image != nil {
			d, err := i.Image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			names[i.Name()] = d.String()
		}
	}
	for _, i := range rebuilt {
		d, err := i.Image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := names[i.Name()]; !ok || before == d.String() {
			t.Errorf("%s: was there: %v, digest before %s, now %s", i.Name(), ok, before, d)
		}
	}
}

func TestEveryFileIsUsedOrNamed(t *testing.T) {
	for _, name := range []string{"adv.jsonl", "vuln.jsonl"} {
		if _, err := fs.Stat(Advisories(), name); err != nil {
			t.Error(err)
		}
	}
	notice, err := read("NOTICE.md")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := data.ReadDir("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.IsDir() && !bytes.Contains(notice, []byte("`"+f.Name()+"/")) {
			t.Errorf("NOTICE.md does not say where %s comes from", f.Name())
		}
	}
}
