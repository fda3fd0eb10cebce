package cmd

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/pratique-sec/pratique/pkg/access"
)

type credentialsCmd struct {
	Init  credentialsInitCmd  `cmd:"" help:"Make keys, a nats-server configuration and a .creds file for each service, once for an installation."`
	Issue credentialsIssueCmd `cmd:"" help:"Make another .creds file for a service, an administrator or a monitor."`
}

type credentialsInitCmd struct {
	Out   string `help:"Folder to write to; nothing in it is overwritten." placeholder:"DIR" required:""`
	Root  string `help:"First token of every subject." default:"pratique"`
	Name  string `help:"Name of operator and account, which the server shows." default:"pratique"`
	Keep  bool   `help:"Leave an installation that the folder holds already as it is, and succeed."`
	Store string `help:"Where the server is to keep its streams, as a path on its own machine." placeholder:"DIR" default:"/data"`
}

func (c *credentialsInitCmd) Run(_ context.Context, r *runner) error {
	in, err := access.NewInstallation(c.Name, c.Root)
	if err != nil {
		return err
	}
	if err := in.Write(c.Out, c.Root, c.Store); errors.Is(err, access.ErrThere) && c.Keep {
		return r.err().Linef("%s holds an installation already, which stays as it is", c.Out)
	} else if errors.Is(err, access.ErrThere) {
		return usagef("--out %s: %w; name another folder, or make further credentials of this one with '%s credentials issue'", c.Out, access.ErrThere, r.program())
	} else if err != nil {
		return usagef("--out: %w", err)
	}
	return r.err().Linef("%s holds:\n"+
		"  %-20s configuration for nats-server: nats-server -c %s\n"+
		"  %-20s one for each service, and for administrators and monitors\n"+
		"  %-20s make further credentials of services\n"+
		"  %-20s make credentials of subscribers\n"+
		"  %-20s change the accounts; not needed for anything else, so keep them elsewhere\n"+
		"All but the first are secrets.", c.Out,
		access.ServerConfigFile, filepath.Join(c.Out, access.ServerConfigFile),
		"*.creds", access.SignerFile, access.SubscriberSignerFile, "keys/")
}

type credentialsIssueCmd struct {
	Service string        `arg:"" help:"ingest, layercache, scanner, psaauditor, alertrouter, admin or monitor." enum:"ingest,layercache,scanner,psaauditor,alertrouter,admin,monitor"`
	Signer  string        `name:"signing-key" help:"The file services.signer that 'credentials init' wrote." placeholder:"FILE" required:""`
	Out     string        `help:"File to write; none is overwritten (default: SERVICE.creds)." placeholder:"FILE"`
	Root    string        `help:"First token of every subject." default:"pratique"`
	Expires time.Duration `help:"How long they are good for (default: for good)." placeholder:"DURATION"`
}

func (c *credentialsIssueCmd) Run(_ context.Context, r *runner) error {
	issuer, err := access.ReadIssuer(c.Signer)
	if err != nil {
		return usagef("--signing-key: %w", err)
	}
	role := access.Role(c.Service)
	permissions, err := access.Of(c.Root, role)
	if err != nil {
		return usagef("SERVICE: %w", err)
	}
	user := access.User{Name: c.Service, Permissions: permissions}
	if c.Expires != 0 {
		user.Expires = r.Now().Add(c.Expires)
	}
	creds, err := issuer.Issue(user)
	if err != nil {
		return err
	}
	if c.Out == "" {
		c.Out = access.CredsFile(role)
	}
	return r.writeCreds(c.Out, creds)
}

// writeCreds writes a new file, and says so.
func (r *runner) writeCreds(path string, creds []byte) error {
	if err := access.WriteNew(path, creds); errors.Is(err, fs.ErrExist) {
		return usagef("--out %s: there is one already; name another, or remove it", path)
	} else if err != nil {
		return usagef("--out: %w", err)
	}
	return r.err().Linef("credentials written to %s", path)
}
