//go:build unix && !linux

package processes

import "syscall"

// attributes: a group of its own, which is killed as a whole.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
