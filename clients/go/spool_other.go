//go:build !unix

package tallygate

import "os"

// lockFile does nothing where there are no POSIX locks: the line in the file is what is left.
func lockFile(*os.File) error { return nil }

func alive(pid int) bool {
	process, err := os.FindProcess(pid)
	if err == nil {
		_ = process.Release()
	}
	return err == nil
}

// syncFolder does nothing where a folder cannot be synced.
func syncFolder(string) error { return nil }
