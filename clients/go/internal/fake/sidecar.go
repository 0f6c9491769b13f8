// Package fake is a small sidecar within the process, for tests that need none of the real one's
// rules: it counts, holds, remembers ids, and fails when it is told to. What it answers is held to
// the real one by the conformance cases.
package fake

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// BadMeter is a meter that the sidecar does not know.
const BadMeter = "unknown"

// RetryAfter is what refusals say.
const RetryAfter = 1500 * time.Millisecond

// Sidecar is the fake. Its fields may be changed between calls.
type Sidecar struct {
	tallygatepb.UnimplementedQuotaServiceServer
	tallygatepb.UnimplementedUsageServiceServer

	// Target is where it listens.
	Target string

	mu       sync.Mutex
	limit    int64
	used     int64
	events   map[string]*tallygatepb.RecordUsageRequest
	held     map[string][]*tallygatepb.Item
	calls    map[string]int
	failures map[string][]error
	refunds  []string
	changed  chan struct{}
}

// Start serves until the test ends. It allows `limit` units in all.
func Start(t testing.TB, limit int64) *Sidecar {
	t.Helper()
	sidecar, stop, err := Serve(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return sidecar
}

// Serve serves until what it returns is called.
func Serve(limit int64) (*Sidecar, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	sidecar := &Sidecar{
		Target:   listener.Addr().String(),
		limit:    limit,
		events:   map[string]*tallygatepb.RecordUsageRequest{},
		held:     map[string][]*tallygatepb.Item{},
		calls:    map[string]int{},
		failures: map[string][]error{},
		changed:  make(chan struct{}),
	}
	server := grpc.NewServer()
	tallygatepb.RegisterQuotaServiceServer(server, sidecar)
	tallygatepb.RegisterUsageServiceServer(server, sidecar)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	return sidecar, func() {
		server.Stop()
		<-served
	}, nil
}

// Examples runs a package's tests with a sidecar at TALLYGATE_TARGET, as examples want one. It
// returns the exit status.
func Examples(m *testing.M) int {
	sidecar, stop, err := Serve(1_000)
	if err == nil {
		defer stop()
		err = os.Setenv("TALLYGATE_TARGET", sidecar.Target)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Fail has the next calls of a method end with these errors, one each.
func (s *Sidecar) Fail(method string, failures ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[method] = append(s.failures[method], failures...)
}

// Calls returns how often a method was attempted.
func (s *Sidecar) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Used returns the units that are used, held ones included.
func (s *Sidecar) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Refunds returns the events that were refunded.
func (s *Sidecar) Refunds() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refunds)
}

// Events returns what was recorded, by its id.
func (s *Sidecar) Events() map[string]*tallygatepb.RecordUsageRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.events)
}

// Await waits until what holds is so; it is asked again after each call.
func (s *Sidecar) Await(t testing.TB, holds func() bool) {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("it never came to hold")
		}
	}
}

// enter counts a call; it holds the lock when it returns no error.
func (s *Sidecar) enter(method string) error {
	s.mu.Lock()
	s.calls[method]++
	if waiting := s.failures[method]; len(waiting) > 0 {
		s.failures[method] = waiting[1:]
		s.leave()
		return waiting[0]
	}
	return nil
}

func (s *Sidecar) leave() {
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
}

func (s *Sidecar) limits() []*tallygatepb.LimitStatus {
	state := tallygatepb.LimitState_LIMIT_STATE_OK
	if s.used >= s.limit {
		state = tallygatepb.LimitState_LIMIT_STATE_EXCEEDED
	}
	return []*tallygatepb.LimitStatus{{
		LimitId: "total", Meter: "requests", State: state, Used: s.used, Limit: s.limit,
		Remaining: max(s.limit-s.used, 0), ResetsAt: timestamppb.New(time.Now().Add(time.Hour)),
	}}
}

func total(items []*tallygatepb.Item) (sum int64) {
	for _, item := range items {
		sum += item.GetAmount()
	}
	return sum
}

// CheckAndConsume charges what fits.
func (s *Sidecar) CheckAndConsume(
	_ context.Context, asked *tallygatepb.CheckAndConsumeRequest,
) (*tallygatepb.CheckAndConsumeResponse, error) {
	if err := s.enter("CheckAndConsume"); err != nil {
		return nil, err
	}
	defer s.leave()
	if s.used+total(asked.GetItems()) > s.limit {
		return &tallygatepb.CheckAndConsumeResponse{
			Limits: s.limits(), RefusedBy: "total", RetryAfter: durationpb.New(RetryAfter),
		}, nil
	}
	s.used += total(asked.GetItems())
	reply := &tallygatepb.CheckAndConsumeResponse{
		Allowed: true, Limits: s.limits(), Durability: tallygatepb.Durability_DURABILITY_REDIS,
	}
	for index, item := range asked.GetItems() {
		id := asked.GetOperationId() + ":" + string(rune('0'+index))
		reply.EventIds = append(reply.EventIds, id)
		s.events[id] = &tallygatepb.RecordUsageRequest{
			TenantId: asked.GetTenantId(), Meter: item.GetMeter(), Amount: item.GetAmount(),
			EventId: id, Context: asked.GetContext(),
		}
	}
	return reply, nil
}

// Reserve holds what fits.
func (s *Sidecar) Reserve(
	_ context.Context, asked *tallygatepb.ReserveRequest,
) (*tallygatepb.ReserveResponse, error) {
	if err := s.enter("Reserve"); err != nil {
		return nil, err
	}
	defer s.leave()
	if s.used+total(asked.GetItems()) > s.limit {
		return &tallygatepb.ReserveResponse{
			Limits: s.limits(), RefusedBy: "total", RetryAfter: durationpb.New(RetryAfter),
		}, nil
	}
	s.used += total(asked.GetItems())
	id := "00-" + asked.GetOperationId()
	s.held[id] = asked.GetItems()
	return &tallygatepb.ReserveResponse{Allowed: true, Limits: s.limits(), ReservationId: id}, nil
}

// Expire has every reservation end.
func (s *Sidecar) Expire() {
	s.mu.Lock()
	defer s.leave()
	for id, items := range s.held {
		s.used -= total(items)
		delete(s.held, id)
	}
}

// Commit records what was used.
func (s *Sidecar) Commit(
	_ context.Context, asked *tallygatepb.CommitRequest,
) (*tallygatepb.CommitResponse, error) {
	if err := s.enter("Commit"); err != nil {
		return nil, err
	}
	defer s.leave()
	items, found := s.held[asked.GetReservationId()]
	if !found {
		return &tallygatepb.CommitResponse{
			Outcome: tallygatepb.ReservationOutcome_RESERVATION_OUTCOME_EXPIRED,
		}, nil
	}
	delete(s.held, asked.GetReservationId())
	reply := &tallygatepb.CommitResponse{
		Outcome: tallygatepb.ReservationOutcome_RESERVATION_OUTCOME_COMMITTED,
	}
	for index, item := range items {
		amount := item.GetAmount()
		if len(asked.GetAmounts()) > 0 {
			amount = asked.GetAmounts()[index]
		}
		s.used += amount - item.GetAmount()
		id := asked.GetOperationId() + ":" + string(rune('0'+index))
		s.events[id] = &tallygatepb.RecordUsageRequest{
			TenantId: asked.GetTenantId(), Meter: item.GetMeter(), Amount: amount, EventId: id,
		}
		reply.EventIds = append(reply.EventIds, id)
	}
	return reply, nil
}

// Release gives back.
func (s *Sidecar) Release(
	_ context.Context, asked *tallygatepb.ReleaseRequest,
) (*tallygatepb.ReleaseResponse, error) {
	if err := s.enter("Release"); err != nil {
		return nil, err
	}
	defer s.leave()
	s.used -= total(s.held[asked.GetReservationId()])
	delete(s.held, asked.GetReservationId())
	return &tallygatepb.ReleaseResponse{
		Outcome: tallygatepb.ReservationOutcome_RESERVATION_OUTCOME_RELEASED,
	}, nil
}

// ExtendReservation extends.
func (s *Sidecar) ExtendReservation(
	context.Context, *tallygatepb.ExtendReservationRequest,
) (*tallygatepb.ExtendReservationResponse, error) {
	if err := s.enter("ExtendReservation"); err != nil {
		return nil, err
	}
	defer s.leave()
	return &tallygatepb.ExtendReservationResponse{
		Outcome: tallygatepb.ReservationOutcome_RESERVATION_OUTCOME_EXTENDED,
	}, nil
}

// Refund notes the event.
func (s *Sidecar) Refund(
	_ context.Context, asked *tallygatepb.RefundRequest,
) (*tallygatepb.RefundResponse, error) {
	if err := s.enter("Refund"); err != nil {
		return nil, err
	}
	defer s.leave()
	s.refunds = append(s.refunds, asked.GetEventId())
	return &tallygatepb.RefundResponse{EventId: asked.GetOperationId(), Amount: 1}, nil
}

// BatchRecordUsage records each event but those of [BadMeter].
func (s *Sidecar) BatchRecordUsage(
	_ context.Context, asked *tallygatepb.BatchRecordUsageRequest,
) (*tallygatepb.BatchRecordUsageResponse, error) {
	if err := s.enter("BatchRecordUsage"); err != nil {
		return nil, err
	}
	defer s.leave()
	reply := &tallygatepb.BatchRecordUsageResponse{}
	for _, each := range asked.GetRequests() {
		result := &tallygatepb.BatchRecordUsageResult{}
		if each.GetMeter() == BadMeter {
			result.Outcome = &tallygatepb.BatchRecordUsageResult_Error{Error: &tallygatepb.ItemError{
				Reason: tallygatepb.Reason_REASON_UNKNOWN_METER, Code: int32(codes.NotFound),
				Field: "meter",
			}}
		} else {
			_, replayed := s.events[each.GetEventId()]
			s.events[each.GetEventId()] = each
			result.Outcome = &tallygatepb.BatchRecordUsageResult_Response{
				Response: &tallygatepb.RecordUsageResponse{
					EventId: each.GetEventId(), Replayed: replayed,
				},
			}
		}
		reply.Results = append(reply.Results, result)
	}
	return reply, nil
}

// Away is the error of a sidecar that does not answer.
func Away() error { return status.Error(codes.Unavailable, "away") }
