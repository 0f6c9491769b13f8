package tallygate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// spoolLock is the hold of one client on a folder: by the system's lock on a file, by a list of
// this process's own holds, which that lock does not exclude, and by the line in the file, which
// says who holds it to languages that have no such lock.
type spoolLock struct {
	folder string
	file   *os.File
}

const (
	lockName     = "lock"
	lockTriesMax = 10
	statStart    = 22 // In /proc/PID/stat: when the process began, in ticks since boot.
)

var (
	heldMu sync.Mutex
	held   = map[string]bool{}
)

func lockSpool(folder string) (*spoolLock, error) {
	real, err := filepath.Abs(folder)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return nil, fmt.Errorf("tallygate: spool: %w", err)
	}
	heldMu.Lock()
	defer heldMu.Unlock()
	if held[real] {
		return nil, fmt.Errorf("%w: %s is held by another client of this process", ErrSpoolLocked, folder)
	}
	for range lockTriesMax {
		file, err := lockOnce(filepath.Join(real, lockName))
		if err != nil {
			return nil, err
		}
		if file != nil {
			held[real] = true
			return &spoolLock{real, file}, nil
		}
	}
	return nil, fmt.Errorf("%w: others take %s all the time", ErrSpoolLocked, folder)
}

// lockOnce returns the locked file, or nil where somebody put another in its place meanwhile.
func lockOnce(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the caller's folder
	if err != nil {
		return nil, fmt.Errorf("tallygate: spool: %w", err)
	}
	kept := false
	defer func() {
		if !kept {
			_ = file.Close()
		}
	}()
	if err := lockFile(file); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSpoolLocked, path, err)
	}
	if pid := holder(file); pid != 0 {
		return nil, fmt.Errorf("%w: %s is held by process %d", ErrSpoolLocked, path, pid)
	}
	line := fmt.Sprintf("%d %d\n", os.Getpid(), startTicks(os.Getpid()))
	if err := errors.Join(file.Truncate(0), writeAt(file, line)); err != nil {
		return nil, fmt.Errorf("tallygate: spool: %w", err)
	}
	mine, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("tallygate: spool: %w", err)
	}
	there, err := os.Stat(path)
	if err != nil || !os.SameFile(mine, there) {
		return nil, nil //nolint:nilerr // it is gone: another try
	}
	kept = true
	return file, nil
}

func writeAt(file *os.File, line string) error {
	_, err := file.WriteAt([]byte(line), 0)
	return err
}

// release empties the line first: this process may live on, and would seem to hold it still.
func (l *spoolLock) release() error {
	heldMu.Lock()
	defer heldMu.Unlock()
	delete(held, l.folder)
	return errors.Join(l.file.Truncate(0), l.file.Close())
}

// holder returns the process that the line names, if it is another one and lives, else 0.
func holder(file *os.File) int {
	line := make([]byte, 64)
	size, _ := file.ReadAt(line, 0)
	words := strings.Fields(string(line[:size]))
	if len(words) != 2 {
		return 0
	}
	pid, err := strconv.Atoi(words[0])
	if err != nil || pid <= 0 || pid == os.Getpid() || !alive(pid) {
		return 0
	}
	// Numbers of processes come again: another that has it now began at another time.
	if began, err := strconv.ParseUint(words[1], 10, 64); err == nil && began != 0 {
		if ticks := startTicks(pid); ticks != 0 && ticks != began {
			return 0
		}
	}
	return pid
}

// startTicks returns when a process began, 0 where the system does not say.
func startTicks(pid int) uint64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses, the second field, may hold anything.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= statStart-3 {
		return 0
	}
	ticks, _ := strconv.ParseUint(fields[statStart-3], 10, 64)
	return ticks
}
