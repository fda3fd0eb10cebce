package access_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pratique-sec/pratique/pkg/access"
)

// FuzzFiles: files that somebody hands over are read without harm.
func FuzzFiles(f *testing.F) {
	in, err := access.NewInstallation("test", "")
	if err != nil {
		f.Fatal(err)
	}
	dir := filepath.Join(f.TempDir(), "made")
	if err := in.Write(dir, "", "/data"); err != nil {
		f.Fatal(err)
	}
	creds, err := in.SubscriberIssuer.Issue(access.User{Name: "a", Permissions: access.ForSubscriber(access.Subscription{State: "s", Findings: "f"})})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(creds)
	for _, name := range []string{access.SignerFile, access.CredsFile(access.Admin), access.ServerConfigFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("-----BEGIN NATS USER JWT-----\ne30.e30.\n------END NATS USER JWT------\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := access.SubscriptionOf(b); err == nil && (s.State == "" || s.Findings == "" || s.Root == "") {
			t.Errorf("half a subscription: %+v", s)
		}
		_, _ = access.InboxOf(b)
		file := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(file, b, 0o600))
		_, _ = access.ReadIssuer(file)
	})
}
