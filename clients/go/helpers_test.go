package tallygate

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tallygate/tallygate/clients/go/internal/fake"
)

const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// open returns a client of the sidecar. Its retries are off: the tests count attempts.
func open(t *testing.T, sidecar *fake.Sidecar, options ...Option) *Client {
	t.Helper()
	set := []Option{WithTarget(sidecar.Target), WithTimeout(patience), WithoutRetry()}
	client, err := New(append(set, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(within(t)) })
	return client
}

func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func one(amount int64) []Item { return []Item{{Meter: "requests", Amount: amount}} }

func use(amount int64) Event { return Event{Tenant: "acme", Meter: "requests", Amount: amount} }

// ours returns how many goroutines stay in the client's own code: one that has just said that it
// ends may take a moment to be gone.
func ours() int {
	left := 0
	for begun := time.Now(); time.Since(begun) < patience; runtime.Gosched() {
		if left = running(); left == 0 {
			break
		}
	}
	return left
}

func running() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	count := 0
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		of := strings.Contains(stack, "tallygate/clients/go.(*")
		if of && !strings.Contains(stack, "testing.tRunner") {
			count++
		}
	}
	return count
}

// sealed gives a record the CRC of what it holds now.
func sealed(record []byte) []byte {
	binary.LittleEndian.PutUint32(record[4:], crc32.ChecksumIEEE(record[recordHeader:]))
	return record
}
