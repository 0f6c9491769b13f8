package tallygate

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// Stats counts what the client has done since it was made.
type Stats struct {
	// Calls counts logical calls that ended, and Errors those that ended with an error.
	Calls, Errors uint64
	// Retries counts attempts beyond each call's first.
	Retries uint64
	// LocalOpen and LocalClosed count decisions of the local policy, by method.
	LocalOpen, LocalClosed map[string]uint64
	// Recorded counts events that the buffer accepted, Sent those that the service accepted then,
	// Replayed those of them that it had already.
	Recorded, Sent, Replayed uint64
	// Rejected counts buffered events that the service will never accept.
	Rejected uint64
	// RefusedFull counts events that the buffer had no room for.
	RefusedFull uint64
	// Pending is how many events wait now.
	Pending int
	// SpoolBytes is the size of the spool now.
	SpoolBytes int64
	// SpoolTorn counts records of the spool that could not be read.
	SpoolTorn uint64
	// SpoolErrors counts writes and syncs of the spool that failed.
	SpoolErrors uint64
}

// Stats returns the counts as they stand.
func (c *Client) Stats() Stats {
	out := c.counters.read()
	if c.buffer != nil {
		out.Pending = c.buffer.pendingNow()
		if c.buffer.spool != nil {
			out.SpoolBytes = c.buffer.spool.size()
		}
	}
	return out
}

type counters struct {
	calls, errors, retries                      atomic.Uint64
	recorded, sent, replayed, rejected, refused atomic.Uint64
	spoolTorn, spoolErrors                      atomic.Uint64

	mu           sync.Mutex
	open, closed map[string]uint64
}

func (c *counters) call(attempts int64) {
	c.calls.Add(1)
	if attempts > 1 {
		c.retries.Add(uint64(attempts - 1))
	}
}

func (c *counters) local(name string, policy Policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := &c.closed
	if policy == Open {
		of = &c.open
	}
	if *of == nil {
		*of = map[string]uint64{}
	}
	(*of)[name]++
}

func (c *counters) read() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Calls:       c.calls.Load(),
		Errors:      c.errors.Load(),
		Retries:     c.retries.Load(),
		LocalOpen:   maps.Clone(c.open),
		LocalClosed: maps.Clone(c.closed),
		Recorded:    c.recorded.Load(),
		Sent:        c.sent.Load(),
		Replayed:    c.replayed.Load(),
		Rejected:    c.rejected.Load(),
		RefusedFull: c.refused.Load(),
		SpoolTorn:   c.spoolTorn.Load(),
		SpoolErrors: c.spoolErrors.Load(),
	}
}

// attempts counts how often one logical call was tried. gRPC retries below its interceptors, and
// tells of each attempt to stats handlers alone.
type attempts struct{ made atomic.Int64 }

type attemptsKey struct{}

type attemptCounter struct{}

func (attemptCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (attemptCounter) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, begins := event.(*stats.Begin); !begins {
		return
	}
	if counted, ok := ctx.Value(attemptsKey{}).(*attempts); ok {
		counted.made.Add(1)
	}
}

func (attemptCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (attemptCounter) HandleConn(context.Context, stats.ConnStats) {}
