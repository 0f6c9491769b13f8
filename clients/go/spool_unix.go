//go:build unix

package tallygate

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the POSIX lock on a file, for as long as the file is open.
func lockFile(file *os.File) error {
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	return syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &lock)
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// syncFolder has the disk know the names in a folder.
func syncFolder(folder string) error {
	opened, err := os.Open(folder) //nolint:gosec // the caller's own
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}
