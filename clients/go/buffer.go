package tallygate

import (
	"context"
	"sync"
	"time"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

const (
	bufferEventsMax     = 10_000
	bufferBatchMax      = 500
	serviceBatchMax     = 1_000
	bufferFlushInterval = 100 * time.Millisecond
)

// Buffer records usage without waiting for the sidecar. It is bounded: what it has no room for is
// refused with [ErrBufferFull], and nothing is dropped silently. What it has accepted it sends
// until the service has answered, across outages; with a spool, across restarts of the process too.
// It is safe for use by several goroutines at once. [Client.Buffer] returns it.
type Buffer struct {
	client  *Client
	options BufferOptions
	spool   *spool
	stop    context.CancelFunc
	stopped chan struct{}
	wake    chan struct{}

	mu          sync.Mutex
	closed      bool
	queue       []*entry
	pending     int // Those in the queue and those in flight.
	urgent      bool
	failures    int // Of whole sends, in a row.
	pausedUntil time.Time
	generation  uint64
	open        map[uint64]int // Pending entries by the generation that they belong to.
	changed     chan struct{}  // Closed, and made anew, when an entry is settled.
}

// entry is what is acknowledged at once: an event, or the commit of a reservation.
type entry struct {
	// records are the event; of a commit, what to record when its reservation is gone.
	records    []*tallygatepb.RecordUsageRequest
	commit     *tallygatepb.CommitRequest
	generation uint64
	ready      time.Time
	failures   int
	segment    *segment
}

func newBuffer(client *Client, options BufferOptions) (*Buffer, error) {
	options = options.withDefaults()
	if options.BatchMax < 1 || options.BatchMax > serviceBatchMax {
		return nil, invalid("buffer.batch_max", "must be 1 to 1,000", "")
	}
	if options.MaxEvents < 1 || options.FlushInterval < 0 || options.SpoolMaxBytes < 1 {
		return nil, invalid("buffer", "bounds must be above 0", "")
	}
	b := &Buffer{
		client:  client,
		options: options,
		stopped: make(chan struct{}),
		wake:    make(chan struct{}, 1),
		open:    map[uint64]int{},
		changed: make(chan struct{}),
	}
	if options.SpoolDir != "" {
		left, err := b.openSpool()
		if err != nil {
			return nil, err
		}
		b.queue = left
		b.pending = len(left)
		b.open[0] = len(left)
		b.urgent = true
		b.nudge()
	}
	ctx, stop := context.WithCancel(client.life)
	b.stop = stop
	go b.run(ctx)
	return b, nil
}

func (o BufferOptions) withDefaults() BufferOptions {
	if o.MaxEvents == 0 {
		o.MaxEvents = bufferEventsMax
	}
	if o.BatchMax == 0 {
		o.BatchMax = bufferBatchMax
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = bufferFlushInterval
	}
	if o.SpoolSync == 0 {
		o.SpoolSync = spoolSyncInterval
	}
	if o.SpoolMaxBytes == 0 {
		o.SpoolMaxBytes = spoolBytesMax
	}
	return o
}

// Record accepts an event, or returns why not: [ErrBufferFull], [ErrClosed], or a fault of the
// spool. It returns the event's id. The event's time is now, unless it has one.
func (b *Buffer) Record(event Event) (string, error) {
	if event.Time.IsZero() {
		event.Time = time.Now() // It may be sent much later.
	}
	made, err := recordOf(event)
	if err != nil {
		return "", err
	}
	if err := b.accept([]*entry{{records: []*tallygatepb.RecordUsageRequest{made}}}); err != nil {
		return "", err
	}
	return made.GetEventId(), nil
}

// Flush sends what was accepted before it, and returns when all of it is acknowledged or rejected.
// When ctx ends before, it returns an [*UnsentError]; what is left stays in the buffer.
func (b *Buffer) Flush(ctx context.Context) error {
	b.mu.Lock()
	target := b.generation
	b.generation++
	b.urgent = true
	b.mu.Unlock()
	b.nudge()
	for {
		b.mu.Lock()
		left, changed := 0, b.changed
		for generation, count := range b.open {
			if generation <= target {
				left += count
			}
		}
		b.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-b.stopped:
			return &UnsentError{left, b.spool != nil}
		case <-ctx.Done():
			return &UnsentError{left, b.spool != nil}
		}
	}
}

// Pending returns how many events wait.
func (b *Buffer) Pending() int { return b.pendingNow() }

func (b *Buffer) pendingNow() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pending
}

func (b *Buffer) close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	err := b.Flush(ctx)
	b.stop()
	<-b.stopped
	if b.spool != nil {
		if fault := b.spool.close(); fault != nil && err == nil {
			err = fault
		}
	}
	return err
}

// addRecords accepts events together or not at all.
func (b *Buffer) addRecords(events []*tallygatepb.RecordUsageRequest) error {
	entries := make([]*entry, len(events))
	for index, event := range events {
		entries[index] = &entry{records: []*tallygatepb.RecordUsageRequest{event}}
	}
	return b.accept(entries)
}

// addCommit accepts a commit that got no answer, and what to record when its reservation is gone.
func (b *Buffer) addCommit(
	commit *tallygatepb.CommitRequest, fallback []*tallygatepb.RecordUsageRequest,
) error {
	return b.accept([]*entry{{commit: commit, records: fallback}})
}

func (b *Buffer) accept(entries []*entry) error {
	b.mu.Lock()
	err := b.acceptLocked(entries)
	pending := b.pending
	full := len(b.queue) >= b.options.BatchMax
	first := len(b.queue) == len(entries)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	b.client.counters.recorded.Add(uint64(len(entries)))
	if full || first {
		b.nudge()
	}
	b.tell(pending)
	return nil
}

func (b *Buffer) acceptLocked(entries []*entry) error {
	if b.closed {
		return ErrClosed
	}
	if b.pending+len(entries) > b.options.MaxEvents {
		b.client.counters.refused.Add(uint64(len(entries)))
		return ErrBufferFull
	}
	if b.spool != nil {
		if err := b.spool.append(entries); err != nil {
			return b.spoolFailed(err, len(entries))
		}
	}
	ready := time.Now().Add(b.options.FlushInterval)
	for _, each := range entries {
		each.ready, each.generation = ready, b.generation
	}
	b.queue = append(b.queue, entries...)
	b.pending += len(entries)
	b.open[b.generation] += len(entries)
	return nil
}

// settled forgets entries that were acknowledged or rejected.
func (b *Buffer) settled(entries []*entry) {
	if len(entries) == 0 {
		return
	}
	b.mu.Lock()
	for _, each := range entries {
		if b.open[each.generation]--; b.open[each.generation] == 0 {
			delete(b.open, each.generation)
		}
		if each.segment != nil {
			b.spool.acknowledge(each.segment)
		}
	}
	b.pending -= len(entries)
	pending := b.pending
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	b.tell(pending)
}

func (b *Buffer) tell(pending int) {
	if hook := b.client.settings.hooks.Buffer; hook != nil {
		guarded(func() { hook(pending) })
	}
}

func (b *Buffer) nudge() {
	select {
	case b.wake <- struct{}{}:
	default: // It is awake already.
	}
}
