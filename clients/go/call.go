package tallygate

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// method is one of the service's, as the stubs have it.
type method[Q, R proto.Message] func(context.Context, Q, ...grpc.CallOption) (R, error)

// call says of a logical call what its request does not.
type call struct {
	name        string
	operationID string
	options     []CallOption
}

// invoke makes one logical call: with a deadline, counted, and with a typed error.
func invoke[Q, R proto.Message](
	ctx context.Context, c *Client, call call, method method[Q, R], request Q,
) (R, error) {
	var none R
	if c.closed.Load() {
		return none, ErrClosed
	}
	chosen := callSettings{timeout: c.settings.timeout}
	for _, option := range call.options {
		option(&chosen)
	}
	return attempt(ctx, c, call, chosen.timeout, method, request)
}

// attempt is invoke for the buffer too, which goes on while the client closes.
func attempt[Q, R proto.Message](
	ctx context.Context, c *Client, call call, timeout time.Duration, method method[Q, R], request Q,
) (R, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	attempts := &attempts{}
	begun := time.Now()
	reply, err := method(context.WithValue(bounded, attemptsKey{}, attempts), request)
	elapsed := time.Since(begun)
	code := status.Code(err)
	c.counters.call(attempts.made.Load())
	if hook := c.settings.hooks.Call; hook != nil {
		guarded(func() { hook(call.name, code, elapsed) })
	}
	if err == nil {
		return reply, nil
	}
	c.counters.errors.Add(1)
	var none R
	if code == codes.Internal {
		// A string that is no UTF-8 is refused before it is sent, and is the caller's.
		if _, fault := proto.Marshal(request); fault != nil {
			return none, invalid("", fault.Error(), call.operationID)
		}
	}
	asked := errors.Is(ctx.Err(), context.Canceled)
	return none, errorOf(err, call.operationID, asked)
}

// absent tells whether err says that no answer came, and not by the caller's own wish.
func absent(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrDeadlineExceeded)
}

// decideLocally applies the local policy to a call that failed: a decision, or the error.
func (c *Client) decideLocally(name, operationID string, err error) (*Decision, error) {
	if !absent(err) {
		return nil, err
	}
	c.counters.local(name, c.settings.policy)
	if hook := c.settings.hooks.Local; hook != nil {
		guarded(func() { hook(name, c.settings.policy) })
	}
	if c.settings.policy != Open {
		return nil, err
	}
	return &Decision{Allowed: true, Local: true, OperationID: operationID}, nil
}

// guarded runs a hook: what goes wrong in it is not the call's.
func guarded(hook func()) {
	defer func() { _ = recover() }()
	hook()
}
