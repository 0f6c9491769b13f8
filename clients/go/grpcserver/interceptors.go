// Package grpcserver meters gRPC servers: each call is charged before its handler runs, and settled
// by how it ended and what it came to. See docs/middleware.md for what all middleware does.
//
//	meter := grpcserver.New(client, grpcserver.Options{
//		Tenant: grpcserver.TenantMetadata("x-tenant"), // set by a proxy in front, never by clients
//		Cost:   grpcserver.Fixed(tallygate.Item{Meter: "requests", Amount: 1}),
//	})
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(meter.Unary()), grpc.ChainStreamInterceptor(meter.Stream()),
//	)
package grpcserver

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/metering"
)

// Options say who pays for a call, and what it costs.
type Options struct {
	// Tenant names who pays; an empty one is INVALID_ARGUMENT. Trust metadata only where something
	// in front of the server sets and strips it. Required.
	Tenant func(ctx context.Context, method string) string
	// Cost is what the call costs, or an estimate, best the most that it may come to: see
	// [metering.Charge]. request is nil for calls that stream requests. None at all passes
	// unmetered. Required, unless Messages is set.
	Cost func(ctx context.Context, method string, request any) []tallygate.Item
	// Exempt lets calls pass unmetered, as health checks.
	Exempt func(ctx context.Context, method string) bool
	// OperationID names the call. Without it a random one is made.
	OperationID func(ctx context.Context, method string) string
	// Context is stored with each event.
	Context func(ctx context.Context, method string) tallygate.EventContext
	// Messages charges streams by their messages too.
	Messages *Messages
	// TTL is how long a reservation lasts when this process dies; 60 s unless set.
	TTL time.Duration
	// Consume charges by one call before the handler runs; failures are refunded.
	Consume bool
	// KeepFailures has failed calls that were consumed stay charged.
	KeepFailures bool
	// Fields say more about the limits in the trailers.
	Fields metering.Fields
	// Unauthenticated answers calls without a tenant with UNAUTHENTICATED.
	Unauthenticated bool
	// Failed is told of errors in asking and in settling; they are logged unless it is set.
	Failed func(context.Context, error)
}

// Count says which messages of a stream are charged.
type Count int

// What can be counted.
const (
	// Sent counts what the server sends.
	Sent Count = iota + 1
	// Received counts what the client sends.
	Received
	// Both counts all of them.
	Both
)

// Messages is the meter of a stream's messages.
type Messages struct {
	// Meter is the meter's name in the catalog.
	Meter string
	// Reserve is the estimate that is held before the handler runs.
	Reserve int64
	// Count says which messages.
	Count Count
}

// TenantMetadata takes the tenant from a key of the call's metadata.
func TenantMetadata(key string) func(context.Context, string) string {
	return func(ctx context.Context, _ string) string {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
			return values[0]
		}
		return ""
	}
}

// Fixed is the same cost for every call.
func Fixed(items ...tallygate.Item) func(context.Context, string, any) []tallygate.Item {
	return func(context.Context, string, any) []tallygate.Item { return items }
}

// Meter makes the interceptors.
type Meter struct {
	client  *tallygate.Client
	options Options
}

// New returns a meter. It panics where Options lack what is required, as it is called when a server
// starts.
func New(client *tallygate.Client, options Options) *Meter {
	switch messages := options.Messages; {
	case options.Tenant == nil:
		panic("tallygate/grpcserver: Options.Tenant is required")
	case options.Cost == nil && messages == nil:
		panic("tallygate/grpcserver: Options.Cost is required")
	case messages != nil && options.Consume:
		panic("tallygate/grpcserver: what is consumed before cannot be measured: Messages")
	case messages != nil && (messages.Count < Sent || messages.Count > Both):
		panic("tallygate/grpcserver: Messages.Count is required")
	}
	if options.Failed == nil {
		options.Failed = func(ctx context.Context, err error) {
			slog.WarnContext(ctx, "tallygate: metering failed", slog.String("error", err.Error()))
		}
	}
	return &Meter{client, options}
}

// Unary returns the interceptor of unary calls.
func (m *Meter) Unary() grpc.UnaryServerInterceptor {
	return func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
	) (reply any, err error) {
		charge, fault := m.begin(ctx, info.FullMethod, request, nil, func(trailer metadata.MD) {
			_ = grpc.SetTrailer(ctx, trailer) // It fails outside of a server alone.
		})
		if fault != nil {
			return nil, fault
		}
		if charge == nil {
			return handler(ctx, request)
		}
		succeeded := false
		defer func() { m.end(ctx, charge, succeeded) }()
		reply, err = handler(metering.NewContext(ctx, charge), request)
		succeeded = err == nil && ctx.Err() == nil
		return reply, err
	}
}

// Stream returns the interceptor of calls that stream.
func (m *Meter) Stream() grpc.StreamServerInterceptor {
	return func(
		server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
	) (err error) {
		ctx := stream.Context()
		charge, fault := m.begin(ctx, info.FullMethod, nil, m.options.Messages, stream.SetTrailer)
		if fault != nil {
			return fault
		}
		if charge == nil {
			return handler(server, stream)
		}
		counted := &countedStream{
			ServerStream: stream, ctx: metering.NewContext(ctx, charge),
		}
		succeeded := false
		defer func() {
			if messages := m.options.Messages; messages != nil && succeeded {
				if fault := charge.Set(messages.Meter, counted.messages(messages.Count)); fault != nil {
					m.options.Failed(ctx, fault)
				}
			}
			m.end(ctx, charge, succeeded)
		}()
		err = handler(server, counted)
		// What a client has got before it left is charged.
		left := ctx.Err() != nil && info.IsServerStream && counted.sent.Load() > 0
		succeeded = err == nil && ctx.Err() == nil || left
		return err
	}
}

// begin asks for the charge of a call; it is nil where the call is not metered.
func (m *Meter) begin(
	ctx context.Context, method string, request any, messages *Messages, trail func(metadata.MD),
) (*metering.Charge, error) {
	options := &m.options
	if options.Exempt != nil && options.Exempt(ctx, method) {
		return nil, nil
	}
	tenant := options.Tenant(ctx, method)
	if tenant == "" {
		return nil, m.tenantMissing()
	}
	ask := metering.Ask{
		Tenant: tenant, TTL: options.TTL,
		Consume: options.Consume, KeepFailures: options.KeepFailures,
	}
	if options.Cost != nil {
		ask.Items = append(ask.Items, options.Cost(ctx, method, request)...)
	}
	if messages != nil {
		item := tallygate.Item{Meter: messages.Meter, Amount: messages.Reserve}
		ask.Items = append(ask.Items, item)
	}
	if len(ask.Items) == 0 {
		return nil, nil
	}
	if options.OperationID != nil {
		ask.OperationID = options.OperationID(ctx, method)
	}
	if options.Context != nil {
		ask.Context = options.Context(ctx, method)
	}
	charge, err := metering.Begin(ctx, m.client, ask)
	if err != nil {
		return nil, m.unserved(ctx, err, trail)
	}
	m.trail(charge.Decision(), trail)
	return charge, nil
}

// end settles beside the call: its status is sent once the interceptor has returned.
func (m *Meter) end(ctx context.Context, charge *metering.Charge, succeeded bool) {
	m.client.Background(func() {
		if err := charge.End(ctx, succeeded); err != nil {
			m.options.Failed(ctx, err)
		}
	})
}

// countedStream counts the messages that pass.
type countedStream struct {
	grpc.ServerStream
	ctx            context.Context
	sent, received atomic.Int64
}

// Context holds the charge.
func (s *countedStream) Context() context.Context { return s.ctx }

// SendMsg counts what was sent.
func (s *countedStream) SendMsg(message any) error {
	err := s.ServerStream.SendMsg(message)
	if err == nil {
		s.sent.Add(1)
	}
	return err
}

// RecvMsg counts what was received.
func (s *countedStream) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	if err == nil {
		s.received.Add(1)
	}
	return err
}

func (s *countedStream) messages(count Count) int64 {
	switch count {
	case Sent:
		return s.sent.Load()
	case Received:
		return s.received.Load()
	default:
		return s.sent.Load() + s.received.Load()
	}
}
