package tallygate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	spoolBytesMax     = 64 << 20
	spoolSyncInterval = 100 * time.Millisecond
	segmentBytesMax   = 1 << 20
	segmentAgeMax     = 10 * time.Second
	segmentDigits     = 16
	segmentSuffix     = ".spool"
)

// spool holds what the buffer has accepted on disk until it is acknowledged: numbered segments in a
// folder of its own, each deleted as a whole. What it holds is sent again after a restart; the ids
// make each event once.
type spool struct {
	folder   string
	bytesMax int64
	each     bool // Sync before each append returns.
	interval time.Duration
	lock     *spoolLock
	counters *counters

	mu      sync.Mutex
	bytes   int64
	number  uint64
	current *segment
	dirty   bool
	written chan struct{} // Wakes keep.
	ended   chan struct{}
	kept    chan struct{} // Closed when keep has ended.
}

// segment is one file of the spool.
type segment struct {
	path string
	file *os.File // Nil once it is sealed.
	size int64
	// open counts entries that were not acknowledged.
	open int
	born time.Time
}

// openSpool opens the buffer's spool and returns the entries that are left in it.
func (b *Buffer) openSpool() ([]*entry, error) {
	s := &spool{
		folder:   b.options.SpoolDir,
		bytesMax: b.options.SpoolMaxBytes,
		each:     b.options.SpoolSync < 0,
		interval: b.options.SpoolSync,
		counters: &b.client.counters,
		written:  make(chan struct{}, 1),
		ended:    make(chan struct{}),
		kept:     make(chan struct{}),
	}
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return nil, fmt.Errorf("tallygate: spool: %w", err)
	}
	lock, err := lockSpool(s.folder)
	if err != nil {
		return nil, err
	}
	s.lock = lock
	left, err := s.recover()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tallygate: spool: %w", err), lock.release())
	}
	b.spool = s
	go s.keep()
	return left, nil
}

// spoolFailed says why the spool did not take events, which then were not accepted.
func (b *Buffer) spoolFailed(err error, events int) error {
	if errors.Is(err, ErrBufferFull) {
		b.client.counters.refused.Add(uint64(events))
		return err
	}
	b.client.counters.spoolErrors.Add(1)
	return fmt.Errorf("tallygate: spool: %w", err)
}

// append writes entries as one piece, or none of them.
func (s *spool) append(entries []*entry) error {
	var out []byte
	var err error
	for _, each := range entries {
		if out, err = encode(out, each); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.current.open == 0 && s.bytes+int64(len(out)) > s.bytesMax {
		s.seal() // All of it was acknowledged, and makes room.
	}
	if s.bytes+int64(len(out)) > s.bytesMax {
		return fmt.Errorf("%w: the spool holds %d bytes", ErrBufferFull, s.bytes)
	}
	if s.outgrown() {
		s.seal()
	}
	if s.current == nil {
		if err := s.begin(); err != nil {
			return err
		}
	}
	if err := s.write(out); err != nil {
		return err
	}
	s.current.open += len(entries)
	for _, each := range entries {
		each.segment = s.current
	}
	s.dirty = !s.each
	select {
	case s.written <- struct{}{}:
	default: // It is to wake already.
	}
	return nil
}

// write appends bytes to the current segment. What failed half-way is taken back: a later record
// behind a torn one would be lost.
func (s *spool) write(out []byte) error {
	now := s.current
	_, err := now.file.Write(out)
	if err == nil && s.each {
		err = now.file.Sync()
	}
	if err == nil {
		now.size += int64(len(out))
		s.bytes += int64(len(out))
		return nil
	}
	if fault := now.file.Truncate(now.size); fault != nil {
		err = errors.Join(err, fault)
	}
	s.seal()
	return err
}

func (s *spool) begin() error {
	s.number++
	name := fmt.Sprintf("%0*d%s", segmentDigits, s.number, segmentSuffix)
	path := filepath.Join(s.folder, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.current = &segment{path: path, file: file, born: time.Now()}
	return syncFolder(s.folder)
}

func (s *spool) outgrown() bool {
	return s.current != nil &&
		(s.current.size >= segmentBytesMax || time.Since(s.current.born) >= segmentAgeMax)
}

// seal ends the current segment: it takes no more, and goes when all of it is acknowledged.
func (s *spool) seal() {
	old := s.current
	s.current, s.dirty = nil, false
	if old.open > 0 {
		if err := old.file.Sync(); err != nil {
			s.counters.spoolErrors.Add(1)
		}
	}
	_ = old.file.Close()
	old.file = nil
	if old.open == 0 {
		s.remove(old)
	}
}

func (s *spool) remove(old *segment) {
	if err := os.Remove(old.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.counters.spoolErrors.Add(1)
		return
	}
	s.bytes -= old.size
}

// acknowledge says that one entry of a segment needs no more sending.
func (s *spool) acknowledge(of *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of.open--
	if of.open > 0 {
		return
	}
	if of.file == nil {
		s.remove(of)
	} else if s.outgrown() {
		s.seal()
	}
}

func (s *spool) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// keep syncs what was written, and ends segments whose time is over, until the spool is closed.
func (s *spool) keep() {
	defer close(s.kept)
	var due, over <-chan time.Time
	for {
		select {
		case <-s.ended:
			return
		case <-s.written:
			if due == nil {
				due, over = time.After(max(s.interval, 0)), time.After(segmentAgeMax)
			}
		case <-due:
			due = nil
			s.sync()
		case <-over:
			over = nil
			s.mu.Lock()
			if s.outgrown() {
				s.seal()
			}
			s.mu.Unlock()
		}
	}
}

// sync has the disk hold what was written. It does so beside appends, which go on meanwhile.
func (s *spool) sync() {
	s.mu.Lock()
	var file *os.File
	if s.dirty {
		file = s.current.file
	}
	s.dirty = false
	s.mu.Unlock()
	if file == nil {
		return
	}
	// A segment that was sealed meanwhile was synced by that.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		s.counters.spoolErrors.Add(1)
		s.mu.Lock()
		if s.current != nil && s.current.file == file {
			s.seal() // What the disk has of it is unknown: the next goes to another.
		}
		s.mu.Unlock()
	}
}

// close syncs what is left, and gives the folder to who comes next.
func (s *spool) close() error {
	close(s.ended)
	<-s.kept
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.seal()
	}
	return s.lock.release()
}

// recover reads what an earlier client has left.
func (s *spool) recover() ([]*entry, error) {
	names, err := filepath.Glob(filepath.Join(s.folder, "*"+segmentSuffix))
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // They have one length: the order of names is that of numbers.
	var left []*entry
	for _, path := range names {
		var number uint64
		base := filepath.Base(path)
		if len(base) != segmentDigits+len(segmentSuffix) {
			continue
		}
		if _, err := fmt.Sscanf(base, "%d"+segmentSuffix, &number); err != nil {
			continue
		}
		s.number = max(s.number, number)
		found, err := s.read(path)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	return left, nil
}

// read returns the entries of one segment. Where a record is torn the segment ends; what follows it
// is set aside.
func (s *spool) read(path string) ([]*entry, error) {
	data, err := os.ReadFile(path) //nolint:gosec // of the caller's folder
	if err != nil {
		return nil, err
	}
	of := &segment{path: path}
	var found []*entry
	at := 0
	for at < len(data) {
		payload, size, err := next(data[at:])
		if err != nil {
			s.counters.spoolTorn.Add(1)
			if err := setAside(path, data[at:]); err != nil {
				return nil, err
			}
			if err := os.Truncate(path, int64(at)); err != nil {
				return nil, err
			}
			break
		}
		at += size
		each, err := decode(payload)
		if err != nil {
			// It was written so, and is no tear: a newer client may know what it is.
			s.counters.spoolTorn.Add(1)
			if err := setAside(path, data[at-size:at]); err != nil {
				return nil, err
			}
			continue
		}
		each.segment = of
		found = append(found, each)
	}
	of.size, of.open = int64(at), len(found)
	s.bytes += of.size
	if of.open == 0 {
		s.remove(of)
	}
	return found, nil
}

// setAside keeps what could not be read of a segment, for people to look at.
func setAside(path string, bytes []byte) error {
	file, err := os.OpenFile(path+".bad", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(bytes)
	return errors.Join(err, file.Close())
}
