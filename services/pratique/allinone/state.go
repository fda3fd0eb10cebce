package allinone

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pratique-sec/pratique/pkg/access"
)

// Names in the state folder.
const (
	lockFile     = "lock"
	natsFolder   = "nats"
	engineFolder = "databases"
	workFolder   = "tmp"
	accessFolder = "access"
	endpointFile = "endpoint.json"
)

// state is the folder that an installation lives in, held by one process at a time.
type state struct {
	dir  string
	lock *os.File
}

// openState makes the folder and takes its lock. The kernel gives the lock back when the process ends,
// however it ends.
func openState(dir string) (*state, error) {
	for _, d := range []string{dir, filepath.Join(dir, natsFolder), filepath.Join(dir, workFolder)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state folder: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("state folder %s: %w", dir, ErrInUse), lock.Close())
	}
	return &state{dir: dir, lock: lock}, nil
}

// ErrInUse says that another process holds the state folder.
var ErrInUse = errors.New("in use by another pratique; stop that one, ask it (scan --server), or name another folder")

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// close takes the endpoint away first: whoever finds one may rely on somebody being there.
func (s *state) close() error {
	err := os.Remove(s.path(endpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(s.path(workFolder)), s.lock.Close())
}

// installation makes, at the first start, the keys and credentials of the installation's NATS, whole or not at
// all.
func (s *state) installation() error {
	_, err := os.Stat(s.path(accessFolder))
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state folder: %w", err)
	}
	in, err := access.NewInstallation("pratique", "")
	if err != nil {
		return err
	}
	made := filepath.Join(s.path(workFolder), accessFolder)
	if err := os.RemoveAll(made); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := in.Write(made, "", s.path(natsFolder)); err != nil {
		return err
	}
	if err := os.Rename(made, s.path(accessFolder)); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// creds is the file of the credentials that this process and the command line use.
func (s *state) creds() string { return credsIn(s.dir) }

func credsIn(dir string) string {
	return filepath.Join(dir, accessFolder, access.CredsFile(access.Admin))
}

// write replaces a file that only its owner may read, whole or not at all.
func (s *state) write(name string, b []byte) error {
	f, err := os.CreateTemp(s.path(workFolder), name) // mode 0600
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("state folder: %w", errors.Join(err, os.Remove(f.Name())))
	}
	if err := os.Rename(f.Name(), s.path(name)); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// Endpoint says where a running installation is reached.
type Endpoint struct {
	NATS   string `json:"nats"` // "nats://127.0.0.1:4222"
	API    string `json:"api"`  // "http://127.0.0.1:8420"
	Creds  string `json:"-"`    // path of an administrator's credentials
	Signer string `json:"-"`    // path of the file that makes credentials for subscribers
}

// ErrNotRunning says that nobody runs on the state folder.
var ErrNotRunning = errors.New("nobody runs there")

// Find reads where the installation in a state folder is reached.
func Find(dir string) (Endpoint, error) {
	b, err := os.ReadFile(filepath.Join(dir, endpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Endpoint{}, fmt.Errorf("state folder %s: %w", dir, ErrNotRunning)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("state folder: %w", err)
	}
	var e Endpoint
	if err := json.Unmarshal(b, &e); err != nil {
		return Endpoint{}, fmt.Errorf("state folder: %s: %w", filepath.Join(dir, endpointFile), err)
	}
	e.Creds, e.Signer = credsIn(dir), filepath.Join(dir, accessFolder, access.SubscriberSignerFile)
	return e, nil
}

func (s *state) announce(e Endpoint) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return s.write(endpointFile, append(b, '\n'))
}
