// Package machine looks at what figures were taken on, and starts the programs that a measurement needs
// beside what it measures.
package machine

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Shape is "2 cores, 24 GiB, linux/amd64, go1.26.3".
func Shape() string {
	cores := "cores"
	if runtime.NumCPU() == 1 {
		cores = "core"
	}
	memory := ""
	if kib, err := field("/proc/meminfo", "MemTotal"); err == nil {
		memory = fmt.Sprintf(", %d GiB", (kib+(1<<19))>>20)
	}
	return fmt.Sprintf("%d %s%s, %s/%s, %s", runtime.NumCPU(), cores, memory, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// Peak is the most memory that a process ever held, in bytes: VmHWM of /proc/PID/status.
func Peak(pid int) (int64, error) {
	kib, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")
	return kib << 10, err
}

// field reads a "Name:   123 kB" line.
func field(path, name string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key != name {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory: %s: %s: %w", path, name, err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("read memory: %s has no %s", path, name)
}
