package redisfacts_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pratique-sec/pratique/pkg/compact"
	"github.com/pratique-sec/pratique/pkg/facts"
	"github.com/pratique-sec/pratique/pkg/facts/factstest"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts"
	"github.com/pratique-sec/pratique/pkg/facts/redisfacts/redistest"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/reason"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestContract(t *testing.T) {
	server := redistest.Start(t)
	open := func(t *testing.T, opts redisfacts.Options) facts.Store {
		if err := server.Client.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		opts.Logger = quiet()
		return redisfacts.New(server.Client, opts)
	}
	factstest.Run(t,
		func(t *testing.T) facts.Store { return open(t, redisfacts.Options{}) },
		factstest.Features{ShortLived: func(t *testing.T) facts.Store {
			return open(t, redisfacts.Options{VerdictTTL: time.Second})
		}})
}

// Every key begins with the prefix and expires; reading facts, records and holders lets them live on,
// and never a verdict.
func TestKeysExpireAndReadingKeepsThem(t *testing.T) {
	ctx := t.Context()
	client := redistest.Start(t).Client
	s := redisfacts.New(client, redisfacts.Options{Logger: quiet(), Prefix: "mine:", TTL: time.Hour, VerdictTTL: time.Hour})
	l := factstest.Layer("content")
	r := facts.Record{Blob: image.DigestOf([]byte("blob")), DiffID: l.DiffID}
	if err := errors.Join(
		s.PutFacts(ctx, l), s.PutRecord(ctx, r), s.PutHolder(ctx, "registry.example", "app", r.Blob),
		s.PutVerdict(ctx, facts.Verdict{Key: "key", Code: reason.Truncated, At: time.Unix(1, 0)}),
	); err != nil {
		t.Fatal(err)
	}
	keys, err := client.Keys(ctx, "*").Result()
	if err != nil || len(keys) != 4 {
		t.Fatalf("keys: %q, %v", keys, err)
	}
	for _, k := range keys {
		if !strings.HasPrefix(k, "mine:") {
			t.Errorf("key %q lacks the prefix", k)
		}
		if ttl := client.TTL(ctx, k).Val(); ttl <= 0 || ttl > time.Hour {
			t.Errorf("key %q lives for %v", k, ttl)
		}
		client.Expire(ctx, k, time.Minute)
	}

	has, errHas := s.HasFacts(ctx, l.DiffID, l.Analysis)
	_, errRecord := s.Record(ctx, r.Blob)
	held, errHolds := s.Holds(ctx, "registry.example", "app", r.Blob)
	_, errVerdict := s.Verdict(ctx, "key")
	if err := errors.Join(errHas, errRecord, errHolds, errVerdict); err != nil || !has || !held {
		t.Fatal(has, held, err)
	}
	for _, k := range keys {
		verdict := strings.HasPrefix(k, "mine:v")
		if ttl := client.TTL(ctx, k).Val(); (ttl > time.Minute) == verdict {
			t.Errorf("key %q lives for %v after it was read", k, ttl)
		}
	}
	client.Expire(ctx, keyOf(keys, "mine:f"), time.Minute)
	if _, err := s.Facts(ctx, l.DiffID, l.Analysis); err != nil {
		t.Fatal(err)
	}
	if ttl := client.TTL(ctx, keyOf(keys, "mine:f")).Val(); ttl <= time.Minute {
		t.Errorf("facts live for %v after they were read", ttl)
	}
}

func keyOf(keys []string, prefix string) string {
	for _, k := range keys {
		if strings.HasPrefix(k, prefix) {
			return k
		}
	}
	return ""
}

// Whatever lies under our keys that is not ours is absent, is logged and is removed.
func TestDamagedValuesAreAbsent(t *testing.T) {
	client := redistest.Start(t).Client
	l := factstest.Layer("damaged")
	packed := compact.Pack(bytes.Repeat([]byte("facts"), 100))
	put := map[string]func(ctx context.Context, key string) error{
		"noise":      func(ctx context.Context, k string) error { return client.Set(ctx, k, "\xff\x00noise", 0).Err() },
		"cut off":    func(ctx context.Context, k string) error { return client.Set(ctx, k, packed[:len(packed)-3], 0).Err() },
		"not facts":  func(ctx context.Context, k string) error { return client.Set(ctx, k, packed, 0).Err() },
		"too large":  func(ctx context.Context, k string) error { return client.Set(ctx, k, make([]byte, 4097), 0).Err() },
		"not a text": func(ctx context.Context, k string) error { return client.LPush(ctx, k, "1").Err() },
	}
	for name, put := range put {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if err := client.FlushAll(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := redisfacts.New(client, redisfacts.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), MaxValue: 4096})
			// Let the store itself say where its keys are.
			if err := errors.Join(
				s.PutFacts(ctx, l), s.PutRecord(ctx, facts.Record{Blob: l.DiffID, DiffID: l.DiffID}),
				s.PutHolder(ctx, "registry.example", "app", l.DiffID),
				s.PutVerdict(ctx, facts.Verdict{Key: "key", Code: reason.Truncated, At: time.Unix(1, 0)}),
			); err != nil {
				t.Fatal(err)
			}
			for _, k := range client.Keys(ctx, "*").Val() {
				if err := errors.Join(client.Del(ctx, k).Err(), put(ctx, k)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Facts(ctx, l.DiffID, l.Analysis); !errors.Is(err, facts.ErrNotFound) {
				t.Errorf("Facts: %v", err)
			}
			if has, err := s.HasFacts(ctx, l.DiffID, l.Analysis); has || err != nil {
				t.Errorf("HasFacts after Facts found the damage: %v, %v", has, err)
			}
			if _, err := s.Verdict(ctx, "key"); !errors.Is(err, facts.ErrNotFound) {
				t.Errorf("Verdict: %v", err)
			}
			if held, err := s.Holds(ctx, "registry.example", "app", l.DiffID); held || err != nil {
				t.Errorf("Holds: %v, %v", held, err)
			}
			r := facts.Record{Blob: l.DiffID, DiffID: l.DiffID, Size: 7}
			if err := s.PutRecord(ctx, r); err != nil {
				t.Errorf("PutRecord over damage: %v", err)
			}
			if got, err := s.Record(ctx, r.Blob); err != nil || got != r {
				t.Errorf("Record put over damage: %+v, %v", got, err)
			}
			if n := strings.Count(log.String(), "discard unusable value in redis"); n != 4 {
				t.Errorf("%d of 4 damaged values were logged:\n%s", n, &log)
			}
		})
	}
}

func TestFactsAboveTheBoundAreRefused(t *testing.T) {
	s := redisfacts.New(redistest.Start(t).Client, redisfacts.Options{Logger: quiet(), MaxValue: 16})
	l := factstest.Layer("content")
	if e := reason.Of(s.PutFacts(t.Context(), l)); e.Kind != reason.Refuse || e.Code != reason.OverBound {
		t.Errorf("PutFacts: %v", e)
	}
}

func TestAwayIsRetry(t *testing.T) {
	server := redistest.Start(t)
	s := redisfacts.New(server.Client, redisfacts.Options{Logger: quiet()})
	server.Stop()
	l := factstest.Layer("content")
	_, errFacts := s.Facts(t.Context(), l.DiffID, l.Analysis)
	_, errHas := s.HasFacts(t.Context(), l.DiffID, l.Analysis)
	for _, err := range []error{errFacts, errHas, s.PutFacts(t.Context(), l), s.ForgetVerdicts(t.Context(), "key")} {
		if e := reason.Of(err); err == nil || e.Kind != reason.Retry || e.Code != reason.CacheUnavailable {
			t.Errorf("got %v, want a retry with %s", err, reason.CacheUnavailable)
		}
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		config redisfacts.Config
		paths  string
	}{
		"nothing":               {redisfacts.Config{}, ""},
		"plain":                 {redisfacts.Config{URL: "redis://localhost:6379/1"}, ""},
		"all of it":             {redisfacts.Config{URL: "rediss://localhost", Username: "me", PasswordFile: "f", CA: "ca", Cert: "c", Key: "k"}, ""},
		"no server":             {redisfacts.Config{PasswordFile: "f"}, "url"},
		"no scheme":             {redisfacts.Config{URL: "localhost:6379"}, "url"},
		"another scheme":        {redisfacts.Config{URL: "http://localhost"}, "url"},
		"no number":             {redisfacts.Config{URL: "redis://localhost/x"}, "url"},
		"a password":            {redisfacts.Config{URL: "redis://me:hunter2@localhost"}, "url"},
		"a password elsewhere":  {redisfacts.Config{URL: "redis://localhost?password=hunter2"}, "url"},
		"a host with a space":   {redisfacts.Config{URL: "redis://me:hunter2@local host"}, "url"},
		"a user alone":          {redisfacts.Config{URL: "redis://localhost", Username: "me"}, "passwordFile"},
		"half a certificate":    {redisfacts.Config{URL: "rediss://localhost", Cert: "c"}, "cert"},
		"an authority for what": {redisfacts.Config{URL: "redis://localhost", CA: "ca"}, "url"},
	} {
		err := c.config.Validate()
		if (err == nil) != (c.paths == "") || err != nil && !strings.HasPrefix(err.Error(), c.paths+": ") {
			t.Errorf("%s: %v, want %s", name, err, c.paths)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the password is in the error: %v", name, err)
		}
	}
}
