package access_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pratique-sec/pratique/pkg/access"
)

func TestFilesOfAnInstallation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "nats")
	in, err := access.NewInstallation("test", "")
	must(t, err)
	must(t, in.Write(dir, "", "/data"))
	// The server accepts its configuration, and everything else is its owner's alone.
	if _, err := server.ProcessConfigFile(filepath.Join(dir, access.ServerConfigFile)); err != nil {
		t.Error(err)
	}
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if info.Mode().Perm()&0o077 != 0 && path != dir {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		return err
	}))
	if err := in.Write(dir, "", "/data"); !errors.Is(err, access.ErrThere) {
		t.Errorf("written twice: %v", err)
	}
	for file, other := range map[string]string{access.SignerFile: in.Account.PublicKey, access.SubscriberSignerFile: in.Subscribers.PublicKey} {
		issuer, err := access.ReadIssuer(filepath.Join(dir, file))
		must(t, err)
		creds, err := issuer.IssueRole("", access.Ingest)
		must(t, err)
		if !strings.Contains(string(creds), "BEGIN USER NKEY SEED") {
			t.Errorf("%s of %s issues %s", file, other, creds)
		}
	}
	_, err = access.ReadIssuer(filepath.Join(dir, access.CredsFile(access.Ingest)))
	if err == nil {
		t.Error("credentials were taken for a signer")
	}
}
