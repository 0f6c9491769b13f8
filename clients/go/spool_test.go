package tallygate

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tallygate/tallygate/clients/go/internal/fake"
	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

func spooled(folder string) Option {
	return WithBuffer(BufferOptions{SpoolDir: folder, FlushInterval: time.Hour})
}

// leave writes a spool as a client that was killed leaves it, and returns its one segment.
func leave(t *testing.T, folder string, events int) string {
	t.Helper()
	client := must(New(WithTarget("unix:"+t.TempDir()+"/none"), spooled(folder)))(t)
	for range events {
		must(client.Buffer().Record(use(1)))(t)
	}
	client.buffer.stop()
	<-client.buffer.stopped
	if err := client.buffer.spool.close(); err != nil {
		t.Fatal(err)
	}
	client.end()
	_ = client.conn.Close()
	return filepath.Join(folder, "0000000000000001.spool")
}

// What is left in a spool is sent by the next client, and the files are gone then.
func TestSpoolSurvives(t *testing.T) {
	folder := t.TempDir()
	leave(t, folder, 3)
	sidecar := fake.Start(t, 100)
	client := open(t, sidecar, spooled(folder))
	if stats := client.Stats(); stats.Pending != 3 || stats.SpoolBytes == 0 {
		t.Errorf("was %+v", stats)
	}
	must(client.Buffer().Record(use(1)))(t)
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if len(sidecar.Events()) != 4 {
		t.Errorf("%d events came", len(sidecar.Events()))
	}
	if err := client.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "*.spool*")); len(left) != 0 {
		t.Errorf("left was %v", left)
	}
	if stats := client.Stats(); stats.SpoolBytes != 0 {
		t.Errorf("was %+v", stats)
	}
}

// Wherever a segment is cut off, all whole records before it are read, and nothing else.
func TestSpoolCutAnywhere(t *testing.T) {
	whole := must(os.ReadFile(leave(t, t.TempDir(), 3)))(t)
	var ends []int
	for at := 0; at < len(whole); {
		_, size, err := next(whole[at:])
		if err != nil {
			t.Fatal(err)
		}
		at += size
		ends = append(ends, at)
	}
	for cut := range len(whole) + 1 {
		want, torn := 0, cut != 0
		for _, end := range ends {
			if end <= cut {
				want++
			}
			torn = torn && end != cut
		}
		found, count := reread(t, whole[:cut])
		if found != want || (count > 0) != torn {
			t.Fatalf("cut at %d: %d of %d records, %d torn", cut, found, want, count)
		}
	}
}

// Whatever byte of a record is damaged, the records before it are read and it is not.
func TestSpoolDamagedAnywhere(t *testing.T) {
	whole := must(os.ReadFile(leave(t, t.TempDir(), 2)))(t)
	_, size, _ := next(whole)
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x41
		found, torn := reread(t, damaged)
		want := 0
		if at >= size {
			want = 1
		}
		if found != want || torn != 1 {
			t.Fatalf("damaged at %d: %d of %d records, %d torn", at, found, want, torn)
		}
	}
}

// reread returns how many records of a segment are read, and how many are torn. What could not be
// read is set aside, so that a second reading finds nothing wrong.
func reread(t *testing.T, content []byte) (found int, torn uint64) {
	t.Helper()
	folder, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "0000000000000001.spool")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	read := &spool{folder: folder, counters: &counters{}}
	entries := must(read.recover())(t)
	aside, _ := os.ReadFile(path + ".bad")
	kept, _ := os.ReadFile(path)
	if !bytes.Equal(append(kept, aside...), content) && len(entries) > 0 {
		t.Fatal("bytes were lost")
	}
	again := &spool{folder: folder, counters: &counters{}}
	if more := must(again.recover())(t); len(more) != len(entries) ||
		again.counters.spoolTorn.Load() != 0 {
		t.Fatal("the second reading differs from the first")
	}
	return len(entries), read.counters.spoolTorn.Load()
}

// The format is the one of every language: bytes that were written by hand are read, and a commit
// is written with its fallback.
func TestSpoolFormat(t *testing.T) {
	// By Python: struct.pack("<II", len(payload), zlib.crc32(payload)) + payload.
	golden := must(hex.DecodeString("0c000000" + "af64f2bc" + "010a0461636d6512016d1805"))(t)
	record := must(encode(nil, &entry{records: []*tallygatepb.RecordUsageRequest{
		{TenantId: "acme", Meter: "m", Amount: 5},
	}}))(t)
	if !bytes.Equal(record, golden) {
		t.Errorf("was %x", record)
	}
	each := &entry{
		commit:  &tallygatepb.CommitRequest{TenantId: "acme", ReservationId: "r"},
		records: []*tallygatepb.RecordUsageRequest{{EventId: "r#c:0"}, {EventId: "r#c:1"}},
	}
	payload, _, err := next(must(encode(nil, each))(t))
	if err != nil || payload[0] != kindSettle {
		t.Fatalf("was %x: %v", payload, err)
	}
	read := must(decode(payload))(t)
	if read.commit.GetReservationId() != "r" || read.records[1].GetEventId() != "r#c:1" {
		t.Errorf("was %v", read)
	}
	plain := append([]byte{kindCommit}, payload[5:5+payload[1]]...)
	if read := must(decode(plain))(t); read.commit.GetTenantId() != "acme" || read.records != nil {
		t.Errorf("was %v", read)
	}
	if _, err := decode([]byte{9}); err == nil {
		t.Error("a kind that nobody knows was read")
	}
}

// Records that this client cannot read are set aside, and those around them are sent.
func TestSpoolOfANewerClient(t *testing.T) {
	folder := t.TempDir()
	path := leave(t, folder, 1)
	first := must(os.ReadFile(path))(t)
	strange := must(encode(nil, &entry{records: []*tallygatepb.RecordUsageRequest{{}}}))(t)
	strange[recordHeader] = 9
	strange = sealed(strange)
	if err := os.WriteFile(path, append(strange, first...), 0o600); err != nil {
		t.Fatal(err)
	}
	read := &spool{folder: folder, counters: &counters{}}
	if found := must(read.recover())(t); len(found) != 1 || read.counters.spoolTorn.Load() != 1 {
		t.Errorf("%d records were read", len(found))
	}
	if aside := must(os.ReadFile(path + ".bad"))(t); !bytes.Equal(aside, strange) {
		t.Errorf("set aside was %x", aside)
	}
}

// A spool that is full refuses, and has room again when what it holds was sent.
func TestSpoolFull(t *testing.T) {
	sidecar := fake.Start(t, 100)
	options := BufferOptions{
		SpoolDir: t.TempDir(), SpoolMaxBytes: 200, SpoolSync: -1, FlushInterval: time.Hour,
	}
	client := open(t, sidecar, WithBuffer(options))
	var err error
	accepted := 0
	for ; err == nil; accepted++ {
		_, err = client.Buffer().Record(use(1))
	}
	if accepted--; !errors.Is(err, ErrBufferFull) || accepted == 0 {
		t.Errorf("after %d it was %v", accepted, err)
	}
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	must(client.Buffer().Record(use(1)))(t)
	if stats := client.Stats(); stats.RefusedFull != 1 || stats.Recorded != uint64(accepted+1) {
		t.Errorf("was %+v", stats)
	}
}

// Segments end at their size, and each goes when all of it was acknowledged.
func TestSpoolSegments(t *testing.T) {
	folder := t.TempDir()
	held := &spool{
		folder: folder, bytesMax: spoolBytesMax, counters: &counters{},
		written: make(chan struct{}, 1),
	}
	large := use(1)
	large.Metadata = map[string]any{"note": string(bytes.Repeat([]byte("x"), 600_000))}
	var segments []*segment
	for range 4 {
		each := &entry{records: []*tallygatepb.RecordUsageRequest{must(recordOf(large))(t)}}
		if err := held.append([]*entry{each}); err != nil {
			t.Fatal(err)
		}
		segments = append(segments, each.segment)
	}
	if segments[0] != segments[1] || segments[1] == segments[2] || segments[2] != segments[3] {
		t.Error("segments end elsewhere")
	}
	held.acknowledge(segments[0])
	if _, err := os.Stat(segments[0].path); err != nil {
		t.Error("a segment went before its time")
	}
	held.acknowledge(segments[0])
	if _, err := os.Stat(segments[0].path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("was %v", err)
	}
}

// A folder has one client: of this process, of another one, and of a language without such locks.
func TestSpoolLock(t *testing.T) {
	folder := t.TempDir()
	first := must(lockSpool(folder))(t)
	if _, err := lockSpool(folder + "/."); !errors.Is(err, ErrSpoolLocked) {
		t.Errorf("was %v", err)
	}
	line := must(os.ReadFile(filepath.Join(folder, lockName)))(t)
	if want := fmt.Sprintf("%d %d\n", os.Getpid(), startTicks(os.Getpid())); string(line) != want {
		t.Errorf("was %q", line)
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	if line := must(os.ReadFile(filepath.Join(folder, lockName)))(t); len(line) != 0 {
		t.Errorf("was %q", line)
	}
	other := elsewhere(t, folder)
	if _, err := lockSpool(folder); !errors.Is(err, ErrSpoolLocked) {
		t.Errorf("was %v", err)
	}
	other()
	parent := os.Getppid()
	path := filepath.Join(folder, lockName)
	living := fmt.Sprintf("%d %d\n", parent, startTicks(parent))
	if err := os.WriteFile(path, []byte(living), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lockSpool(folder); !errors.Is(err, ErrSpoolLocked) {
		t.Errorf("was %v", err)
	}
	reused := fmt.Sprintf("%d %d\n", parent, startTicks(parent)+1)
	if err := os.WriteFile(path, []byte(reused), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := must(lockSpool(folder))(t).release(); err != nil {
		t.Fatal(err)
	}
}

const lockedFolder = "TALLYGATE_TEST_LOCKED_FOLDER"

// TestMain is also the other process of TestSpoolLock: it takes the folder, and ends when killed.
func TestMain(m *testing.M) {
	folder := os.Getenv(lockedFolder)
	if folder == "" {
		os.Exit(fake.Examples(m))
	}
	if _, err := lockSpool(folder); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("locked")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// elsewhere has another process hold the folder, until what it returns is called: it is killed.
func elsewhere(t *testing.T, folder string) func() {
	t.Helper()
	command := exec.Command(os.Args[0]) //nolint:gosec // this very program
	command.Env = append(os.Environ(), lockedFolder+"="+folder)
	out := must(command.StdoutPipe())(t)
	must(command.StdinPipe())(t)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if said := must(bufio.NewReader(out).ReadString('\n'))(t); said != "locked\n" {
		t.Fatalf("it said %q", said)
	}
	return func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
}
