package processes

import "syscall"

// attributes: a group of its own, which is killed as a whole, and dies with the test.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
