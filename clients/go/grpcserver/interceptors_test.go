package grpcserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/grpcserver"
	"github.com/tallygate/tallygate/clients/go/internal/fake"
	"github.com/tallygate/tallygate/clients/go/metering"
	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

const patience = 20 * time.Second

// app is any service; it happens to be of our own protos, as they are at hand.
type app struct {
	tallygatepb.UnimplementedUsageServiceServer
	unary  func(context.Context) error
	stream func(tallygatepb.UsageService_StreamRecordUsageServer) error
}

func (a *app) RecordUsage(
	ctx context.Context, _ *tallygatepb.RecordUsageRequest,
) (*tallygatepb.RecordUsageResponse, error) {
	return &tallygatepb.RecordUsageResponse{EventId: "app"}, a.unary(ctx)
}

func (a *app) StreamRecordUsage(stream tallygatepb.UsageService_StreamRecordUsageServer) error {
	return a.stream(stream)
}

type shop struct {
	sidecar *fake.Sidecar
	stub    tallygatepb.UsageServiceClient
	ctx     context.Context
}

func open(t *testing.T, limit int64, options grpcserver.Options, served *app) *shop {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	sidecar := fake.Start(t, limit)
	client, err := tallygate.New(
		tallygate.WithTarget(sidecar.Target), tallygate.WithTimeout(patience),
		tallygate.WithoutRetry(),
	)
	if err != nil {
		t.Fatal(err)
	}
	options.Tenant = grpcserver.TenantMetadata("x-tenant")
	if options.Cost == nil {
		options.Cost = grpcserver.Fixed(tallygate.Item{Meter: "requests", Amount: 2})
	}
	options.Failed = func(context.Context, error) {}
	meter := grpcserver.New(client, options)
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(meter.Unary()), grpc.ChainStreamInterceptor(meter.Stream()),
	)
	tallygatepb.RegisterUsageServiceServer(server, served)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient(
		listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-done
		_ = client.Close(ctx)
	})
	ctx = metadata.AppendToOutgoingContext(ctx, "x-tenant", "acme")
	return &shop{sidecar, tallygatepb.NewUsageServiceClient(conn), ctx}
}

func (s *shop) settled(t *testing.T, used int64, commits int) {
	t.Helper()
	s.sidecar.Await(t, func() bool {
		return s.sidecar.Calls("Commit") == commits && s.sidecar.Used() == used
	})
}

// A call that ends OK is charged by what it says, and its trailers say where the caller stands.
func TestUnary(t *testing.T) {
	s := open(t, 10, grpcserver.Options{}, &app{unary: func(ctx context.Context) error {
		return metering.FromContext(ctx).Set("requests", 5)
	}})
	var trailer metadata.MD
	_, err := s.stub.RecordUsage(s.ctx, &tallygatepb.RecordUsageRequest{}, grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	if told := trailer.Get("tallygate-ratelimit"); len(told) != 1 || told[0] != `"total";r=8;t=3600` {
		t.Errorf("was %v", trailer)
	}
	if told := trailer.Get("tallygate-ratelimit-policy"); len(told) != 1 || told[0] != `"total";q=10` {
		t.Errorf("was %v", trailer)
	}
	s.settled(t, 5, 1)
}

// A call that fails costs nothing, and its status is the app's.
func TestUnaryThatFails(t *testing.T) {
	s := open(t, 10, grpcserver.Options{}, &app{unary: func(context.Context) error {
		return status.Error(codes.DataLoss, "the app's own")
	}})
	_, err := s.stub.RecordUsage(s.ctx, &tallygatepb.RecordUsageRequest{})
	if status.Code(err) != codes.DataLoss {
		t.Errorf("was %v", err)
	}
	s.sidecar.Await(t, func() bool { return s.sidecar.Calls("Release") == 1 })
	s.settled(t, 0, 0)
}

// A refusal is RESOURCE_EXHAUSTED with the limit, the wait and the reason, and the same figures.
func TestRefused(t *testing.T) {
	s := open(t, 1, grpcserver.Options{}, &app{unary: func(context.Context) error {
		t.Error("the app was asked")
		return nil
	}})
	var trailer metadata.MD
	_, err := s.stub.RecordUsage(s.ctx, &tallygatepb.RecordUsageRequest{}, grpc.Trailer(&trailer))
	state := status.Convert(err)
	var subjects, reasons []string
	var wait time.Duration
	for _, detail := range state.Details() {
		switch detail := detail.(type) {
		case *errdetails.QuotaFailure:
			for _, violation := range detail.GetViolations() {
				subjects = append(subjects, violation.GetSubject())
			}
		case *errdetails.ErrorInfo:
			reasons = append(reasons, detail.GetDomain()+" "+detail.GetReason())
		case *errdetails.RetryInfo:
			wait = detail.GetRetryDelay().AsDuration()
		}
	}
	if state.Code() != codes.ResourceExhausted || len(subjects) != 1 || subjects[0] != "limit:total" ||
		len(reasons) != 1 || reasons[0] != "tallygate QUOTA_EXCEEDED" || wait != fake.RetryAfter {
		t.Errorf("was %v: %v", state, state.Details())
	}
	if told := trailer.Get("tallygate-ratelimit"); len(told) != 1 || told[0] != `"total";r=1;t=2` {
		t.Errorf("was %v", trailer)
	}
}

// Calls for which there is no decision end with a status that says so, and no more.
func TestUnserved(t *testing.T) {
	s := open(t, 10, grpcserver.Options{}, &app{})
	_, err := s.stub.RecordUsage(context.Background(), &tallygatepb.RecordUsageRequest{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a tenant it was %v", err)
	}
	for given, want := range map[codes.Code]codes.Code{
		codes.Unavailable: codes.Unavailable, codes.ResourceExhausted: codes.Unavailable,
		codes.Internal: codes.Internal, codes.NotFound: codes.Internal,
	} {
		s.sidecar.Fail("Reserve", status.Error(given, "secret"))
		_, err := s.stub.RecordUsage(s.ctx, &tallygatepb.RecordUsageRequest{})
		state := status.Convert(err)
		if state.Code() != want || state.Message() == "secret" {
			t.Errorf("%s was %v", given, err)
		}
		if (want == codes.Unavailable) != (len(state.Details()) == 1) {
			t.Errorf("%s had %v", given, state.Details())
		}
	}
}

// A stream is charged by its messages, those that were sent and those that were received.
func TestStream(t *testing.T) {
	served := &app{stream: func(stream tallygatepb.UsageService_StreamRecordUsageServer) error {
		if metering.FromContext(stream.Context()) == nil {
			t.Error("there is no charge")
		}
		for {
			_, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return stream.Send(&tallygatepb.StreamRecordUsageResponse{})
			}
			if err != nil {
				return err
			}
		}
	}}
	for count, want := range map[grpcserver.Count]int64{
		grpcserver.Sent: 1, grpcserver.Received: 3, grpcserver.Both: 4,
	} {
		messages := &grpcserver.Messages{Meter: "messages", Reserve: 50, Count: count}
		s := open(t, 100, grpcserver.Options{Messages: messages}, served)
		stream, err := s.stub.StreamRecordUsage(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := stream.Send(&tallygatepb.StreamRecordUsageRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		_ = stream.CloseSend()
		for err == nil {
			_, err = stream.Recv()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		s.settled(t, 2+want, 1)
	}
}

// A client that leaves a stream pays for what it was sent; had it been sent nothing, nothing.
func TestStreamThatItsClientLeaves(t *testing.T) {
	for _, sent := range []int64{0, 2} {
		served := &app{stream: func(stream tallygatepb.UsageService_StreamRecordUsageServer) error {
			for range sent {
				if err := stream.Send(&tallygatepb.StreamRecordUsageResponse{}); err != nil {
					return err
				}
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}}
		messages := &grpcserver.Messages{Meter: "messages", Reserve: 50, Count: grpcserver.Sent}
		s := open(t, 100, grpcserver.Options{Messages: messages}, served)
		ctx, cancel := context.WithCancel(s.ctx)
		stream, err := s.stub.StreamRecordUsage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s.sidecar.Await(t, func() bool { return s.sidecar.Calls("Reserve") == 1 })
		for range sent {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if sent == 0 {
			s.sidecar.Await(t, func() bool { return s.sidecar.Calls("Release") == 1 })
			s.settled(t, 0, 0)
			continue
		}
		s.settled(t, 2+sent, 1)
	}
}
