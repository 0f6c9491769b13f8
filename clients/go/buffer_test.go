package tallygate

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tallygate/tallygate/clients/go/internal/fake"
)

// What many record at once is sent in batches, each event once.
func TestBufferSends(t *testing.T) {
	sidecar := fake.Start(t, 1000)
	client := open(t, sidecar, WithBuffer(BufferOptions{BatchMax: 16}))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 25 {
				must(client.Buffer().Record(use(2)))(t)
			}
		})
	}
	group.Wait()
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	stats := client.Stats()
	if stats.Recorded != 200 || stats.Sent != 200 || stats.Pending != 0 || stats.Replayed != 0 {
		t.Errorf("was %+v", stats)
	}
	if len(sidecar.Events()) != 200 || sidecar.Calls("BatchRecordUsage") < 200/16 {
		t.Errorf("%d events came", len(sidecar.Events()))
	}
}

// An event is sent by itself after the interval, and has the time at which it was recorded.
func TestBufferSendsByItself(t *testing.T) {
	sidecar := fake.Start(t, 1000)
	client := open(t, sidecar, WithBuffer(BufferOptions{FlushInterval: time.Millisecond}))
	id := must(client.Buffer().Record(use(2)))(t)
	sidecar.Await(t, func() bool { return len(sidecar.Events()) == 1 })
	if sidecar.Events()[id].GetEventTime() == nil {
		t.Error("it has no time")
	}
}

// What gets no answer is sent until it does.
func TestBufferThroughAnOutage(t *testing.T) {
	sidecar := fake.Start(t, 1000)
	cancelled := status.Error(codes.Canceled, "stopping")
	late := status.Error(codes.DeadlineExceeded, "late")
	expired := status.Error(codes.Unauthenticated, "renew it")
	sidecar.Fail("BatchRecordUsage", fake.Away(), cancelled, late, expired)
	client := open(t, sidecar, WithBuffer(BufferOptions{}))
	must(client.Buffer().Record(use(2)))(t)
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if sidecar.Calls("BatchRecordUsage") != 5 || len(sidecar.Events()) != 1 {
		t.Errorf("%d attempts were made", sidecar.Calls("BatchRecordUsage"))
	}
}

// A buffer that is full refuses, and counts what it has refused.
func TestBufferFull(t *testing.T) {
	sidecar := fake.Start(t, 1000)
	client := open(t, sidecar, WithBuffer(BufferOptions{MaxEvents: 2, FlushInterval: time.Hour}))
	must(client.Buffer().Record(use(1)))(t)
	must(client.Buffer().Record(use(1)))(t)
	if _, err := client.Buffer().Record(use(1)); !errors.Is(err, ErrBufferFull) {
		t.Errorf("was %v", err)
	}
	if stats := client.Stats(); stats.RefusedFull != 1 || stats.Pending != 2 {
		t.Errorf("was %+v", stats)
	}
}

// An event that will never be accepted is told of; its neighbours are sent.
func TestBufferRejects(t *testing.T) {
	sidecar := fake.Start(t, 1000)
	var rejected []Event
	var pending []int
	client := open(t, sidecar, WithBuffer(BufferOptions{FlushInterval: time.Hour}), WithHooks(Hooks{
		Rejected: func(event Event, err error) {
			if errors.Is(err, ErrNotFound) {
				rejected = append(rejected, event)
			}
		},
		Buffer: func(waiting int) { pending = append(pending, waiting) },
	}))
	bad := use(2)
	bad.Meter, bad.Metadata = fake.BadMeter, map[string]any{"note": "kept"}
	must(client.Buffer().Record(use(1)))(t)
	must(client.Buffer().Record(bad))(t)
	must(client.Buffer().Record(use(1)))(t)
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if stats := client.Stats(); stats.Sent != 2 || stats.Rejected != 1 {
		t.Errorf("was %+v", stats)
	}
	_ = client.Close(within(t)) // After it no hook runs.
	if len(rejected) != 1 || rejected[0].Amount != 2 || rejected[0].Metadata["note"] != "kept" {
		t.Errorf("was %+v", rejected)
	}
	if len(pending) != 4 || pending[2] != 3 || pending[3] != 0 {
		t.Errorf("was %v", pending)
	}
}

// A batch that is refused as a whole is halved until what is at fault stands alone.
func TestBufferHalves(t *testing.T) {
	sidecar := fake.Start(t, 1000)
	large := status.Error(codes.ResourceExhausted, "too large")
	sidecar.Fail("BatchRecordUsage", large, large, large)
	client := open(t, sidecar, WithBuffer(BufferOptions{FlushInterval: time.Hour}))
	for range 4 {
		must(client.Buffer().Record(use(1)))(t)
	}
	if err := client.Buffer().Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if stats := client.Stats(); stats.Sent != 3 || stats.Rejected != 1 {
		t.Errorf("was %+v", stats)
	}
}

// Flush and Close say what they could not send.
func TestUnsent(t *testing.T) {
	client := must(New(WithTarget("unix:"+t.TempDir()+"/none"), WithBuffer(BufferOptions{})))(t)
	must(client.Buffer().Record(use(1)))(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	var unsent *UnsentError
	if err := client.Buffer().Flush(ctx); !errors.As(err, &unsent) || unsent.Pending != 1 {
		t.Errorf("was %v", err)
	}
	if err := client.Close(ctx); !errors.Is(err, ErrUnsent) || !errors.As(err, &unsent) {
		t.Errorf("was %v", err)
	}
	if left := ours(); left != 0 {
		t.Errorf("%d goroutines are left", left)
	}
}

// A wait grows with failures, is never longer than its bound, and keeps to what is asked for.
func TestWaits(t *testing.T) {
	for failures := 1; failures < 100; failures++ {
		if wait := jittered(failures); wait <= 0 || wait > delayMax {
			t.Errorf("after %d failures it was %s", failures, wait)
		}
	}
	for value, want := range map[string]time.Duration{
		"250": 250 * time.Millisecond, "-1": 0, "soon": 0,
	} {
		if wait := pushback(metadata.Pairs("grpc-retry-pushback-ms", value)); wait != want {
			t.Errorf("%s was %s", value, wait)
		}
	}
}
