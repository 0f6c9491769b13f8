// Package metering is what the middleware of this client shares: a charge that is asked for before
// work, told what the work has cost, and settled once when it ends. Use it to meter what has no
// middleware here.
package metering

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tallygate/tallygate/clients/go"
)

// Ask is what to charge.
type Ask struct {
	// Tenant is who pays.
	Tenant string
	// Items are what the work costs, or is thought to cost at most.
	Items []tallygate.Item
	// OperationID names the call; empty: a random one is made.
	OperationID string
	// Context is stored with each event.
	Context tallygate.EventContext
	// TTL is how long a reservation lasts unless it is kept alive, as it is until it is settled.
	TTL time.Duration
	// Consume charges at once, instead of holding first: for a fixed cost of work that seldom fails.
	Consume bool
	// KeepFailures has what was consumed stand when the work fails, instead of being refunded.
	KeepFailures bool
}

// ErrUnmetered says that there is no charge, as the request is not metered.
var ErrUnmetered = errors.New("tallygate: the request is not metered")

// Charge is what work costs. Its methods may be called from several goroutines at once, and on nil:
// those of a request that is not metered.
type Charge struct {
	client   *tallygate.Client
	ask      Ask
	decision tallygate.Decision
	held     *tallygate.Reservation

	mu        sync.Mutex
	actual    []*int64
	cancelled bool
	settled   bool
}

// Begin asks for the charge. A refusal is a [*tallygate.QuotaExceededError].
func Begin(ctx context.Context, client *tallygate.Client, ask Ask) (*Charge, error) {
	charge := &Charge{client: client, ask: ask, actual: make([]*int64, len(ask.Items))}
	if ask.Consume {
		decision, err := client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
			Tenant: ask.Tenant, Items: ask.Items, OperationID: ask.OperationID, Context: ask.Context,
		})
		if err != nil {
			return nil, err
		}
		charge.decision = *decision
	} else {
		held, err := client.Reserve(ctx, tallygate.ReserveRequest{
			Tenant: ask.Tenant, Items: ask.Items, OperationID: ask.OperationID,
			Context: ask.Context, TTL: ask.TTL,
		})
		if err != nil {
			return nil, err
		}
		held.KeepAlive()
		charge.held, charge.decision = held, held.Decision
	}
	if !charge.decision.Allowed {
		return nil, &tallygate.QuotaExceededError{Decision: charge.decision}
	}
	return charge, nil
}

type contextKey struct{}

// NewContext returns a context that holds the charge, for [FromContext].
func NewContext(ctx context.Context, charge *Charge) context.Context {
	return context.WithValue(ctx, contextKey{}, charge)
}

// FromContext returns the charge of the request that ctx belongs to, nil where it is not metered.
func FromContext(ctx context.Context) *Charge {
	charge, _ := ctx.Value(contextKey{}).(*Charge)
	return charge
}

// Decision returns what was decided before the work.
func (c *Charge) Decision() tallygate.Decision {
	if c == nil {
		return tallygate.Decision{}
	}
	return c.decision
}

// OperationID returns the id of the call that was decided.
func (c *Charge) OperationID() string { return c.Decision().OperationID }

// Set says what the work has used of a meter; the last one counts. It fails for a meter that is no
// item of the request, and where the charge was consumed before the work.
func (c *Charge) Set(meter string, amount int64) error {
	return c.change(meter, func(*int64) int64 { return amount })
}

// Add says that the work has used more of a meter: the first one adds to 0.
func (c *Charge) Add(meter string, amount int64) error {
	return c.change(meter, func(before *int64) int64 {
		if before == nil {
			return amount
		}
		return *before + amount
	})
}

// Cancel has nothing charged, however the work ends.
func (c *Charge) Cancel() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelled = true
}

func (c *Charge) change(meter string, to func(before *int64) int64) error {
	if c == nil {
		return ErrUnmetered
	}
	if c.ask.Consume {
		return fmt.Errorf("tallygate: %s was charged before the work: it cannot be set", meter)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for index, item := range c.ask.Items {
		if item.Meter == meter {
			amount := to(c.actual[index])
			c.actual[index] = &amount
			return nil
		}
	}
	return fmt.Errorf("tallygate: %s is no meter of this request", meter)
}

// End settles the charge, once: with what was used when the work has succeeded, else with nothing.
// It does not end with ctx.
func (c *Charge) End(ctx context.Context, succeeded bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return nil
	}
	c.settled = true
	ctx = context.WithoutCancel(ctx)
	keep := succeeded && !c.cancelled
	switch {
	case c.held == nil && (keep || c.ask.KeepFailures):
		return nil
	case c.held == nil:
		return c.refund(ctx)
	case keep:
		c.held.SetActual(c.amounts()...)
		_, err := c.held.Commit(ctx)
		return err
	default:
		_, err := c.held.Release(ctx)
		return err
	}
}

// amounts returns what was used per item: what was told, else what was reserved.
func (c *Charge) amounts() []int64 {
	out := make([]int64, len(c.ask.Items))
	for index, item := range c.ask.Items {
		out[index] = item.Amount
		if told := c.actual[index]; told != nil {
			out[index] = max(*told, 0)
		}
	}
	return out
}

// refund gives back what was consumed, event by event. What was granted locally was not charged by
// the sidecar yet, and stands.
func (c *Charge) refund(ctx context.Context) error {
	if c.decision.Local {
		return nil
	}
	var faults []error
	for index, id := range c.decision.EventIDs {
		_, err := c.client.Refund(ctx, tallygate.RefundRequest{
			Tenant:      c.ask.Tenant,
			EventID:     id,
			OperationID: c.decision.OperationID + "#f" + strconv.Itoa(index),
			Reason:      "the request failed",
		})
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
