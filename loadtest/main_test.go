package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pratique-sec/pratique/loadtest/internal/figures"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // as in main
	os.Exit(m.Run())
}

// A small load on a whole Pratique in this process: nothing lost, nothing twice, every form written.
func TestEmbedded(t *testing.T) {
	page := filepath.Join(t.TempDir(), "load.html")
	var out, err bytes.Buffer
	code := run(t.Context(), []string{
		"-own-images", "-duration", "2s", "-rate", "10", "-tags", "6", "-layers", "12", "-image-layers", "3",
		"-interactive", "0.2", "-backfill", "0.3", "-o", "json", "-html", page,
	}, &out, &err)
	if code != exitSound {
		t.Fatalf("exit %d\n%s\n%s", code, out.String(), err.String())
	}
	var f figures.Load
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	if !f.Sound || f.Steps != 20 || len(f.Lanes) != 3 || f.Scans == 0 || f.Deltas == 0 || f.Analysed == 0 || f.Analysed > f.Distinct || f.Dedup <= 0 {
		t.Errorf("%+v", f)
	}
	html, rerr := os.ReadFile(page)
	if rerr != nil {
		t.Fatal(rerr)
	}
	for _, want := range []string{"<svg", "interactive", "backfill", "duplicates: 0"} {
		if !bytes.Contains(html, []byte(want)) {
			t.Errorf("the page has no %q", want)
		}
	}
	if bytes.Contains(html, []byte("http://")) || bytes.Contains(html, []byte("https://")) || bytes.Contains(html, []byte("<script")) {
		t.Error("the page loads something from elsewhere")
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args string
		says string
	}{
		{"-rate 0 -tags 0", "tags: 0"},
		{"-zipf 1", "zipf"},
		{"-o yaml", `-o "yaml"`},
		{"extra", `"extra"`},
		{"-server http://127.0.0.1:1", "-registry: missing"},
		{"-nats nats://127.0.0.1:1 -registry r.example", "-server: missing"},
		{"-creds FILE", "go with -server"},
		{"-no-such-flag", "no-such-flag"},
	} {
		var out, err bytes.Buffer
		if code := run(t.Context(), strings.Fields(tt.args), &out, &err); code != exitUsage || !strings.Contains(err.String(), tt.says) {
			t.Errorf("%s: exit %d, %s", tt.args, code, err.String())
		}
	}
}

// Who can not be reached is named, with the flag that names it.
func TestNobodyThere(t *testing.T) {
	var out, err bytes.Buffer
	args := "-own-images -server http://127.0.0.1:1 -nats nats://127.0.0.1:1 -registry 127.0.0.1:1"
	if code := run(t.Context(), strings.Fields(args), &out, &err); code != exitUnsound || !strings.Contains(err.String(), "-nats nats://127.0.0.1:1") {
		t.Errorf("exit %d, %s", code, err.String())
	}
}
