package tallygate

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tallygate/tallygate/clients/go/internal/fake"
)

// A charge is answered with a decision under an id that was made for it, and carries the SDK.
func TestCheckAndConsume(t *testing.T) {
	sidecar := fake.Start(t, 10)
	client := open(t, sidecar)
	request := CheckAndConsumeRequest{Tenant: "acme", Items: one(4)}
	told := must(client.CheckAndConsume(within(t), request))(t)
	id := told.OperationID
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab]`).MatchString(id) {
		t.Errorf("no UUID: %s", id)
	}
	if !told.Allowed || told.Durability != DurabilityRedis || told.EventIDs[0] != id+":0" {
		t.Errorf("was %+v", told)
	}
	limit := told.Limits[0]
	if limit.State != StateOK || limit.Remaining != 6 || limit.ResetsAt.IsZero() {
		t.Errorf("was %+v", limit)
	}
	if sent := sidecar.Events()[id+":0"].GetContext().GetSdk(); sent != "tallygate-go/"+Version {
		t.Errorf("the SDK was %q", sent)
	}
	request.Items = one(7)
	told = must(client.CheckAndConsume(within(t), request))(t)
	if told.Allowed || told.RefusedBy != "total" || told.RetryAfter != fake.RetryAfter {
		t.Errorf("was %+v", told)
	}
}

// UNAVAILABLE is retried, and each attempt beyond the first is counted.
func TestRetry(t *testing.T) {
	sidecar := fake.Start(t, 10)
	sidecar.Fail("CheckAndConsume", fake.Away(), fake.Away())
	client := must(New(WithTarget(sidecar.Target), WithTimeout(patience)))(t)
	request := CheckAndConsumeRequest{Tenant: "acme", Items: one(1)}
	must(client.CheckAndConsume(within(t), request))(t)
	if stats := client.Stats(); stats.Retries != 2 || stats.Calls != 1 || stats.Errors != 0 {
		t.Errorf("was %+v", stats)
	}
	if err := client.Close(within(t)); err != nil {
		t.Error(err)
	}
}

// A failure has its kind, and all that its details say.
func TestErrors(t *testing.T) {
	sidecar := fake.Start(t, 10)
	client := open(t, sidecar)
	detailed, err := status.New(codes.InvalidArgument, "is no meter").WithDetails(
		&errdetails.ErrorInfo{Reason: "INVALID_FIELD", Domain: "tallygate"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "items[0].meter"},
		}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)},
	)
	if err != nil {
		t.Fatal(err)
	}
	sidecar.Fail("CheckAndConsume", detailed.Err())
	request := CheckAndConsumeRequest{Tenant: "acme", Items: one(1), OperationID: "mine"}
	_, err = client.CheckAndConsume(within(t), request)
	var failure *Error
	if !errors.As(err, &failure) || !errors.Is(err, ErrInvalidRequest) {
		t.Fatalf("was %v", err)
	}
	want := Error{
		Code: codes.InvalidArgument, Reason: "INVALID_FIELD", Message: "is no meter",
		Field: "items[0].meter", RetryAfter: time.Second, OperationID: "mine",
		kind: ErrInvalidRequest,
	}
	if *failure != want {
		t.Errorf("was %+v", *failure)
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Error("it is no status")
	}
	for code, kind := range map[codes.Code]error{
		codes.OutOfRange: ErrInvalidRequest, codes.Unavailable: ErrUnavailable,
		codes.Canceled: ErrUnavailable, codes.DeadlineExceeded: ErrDeadlineExceeded,
		codes.Unauthenticated: ErrUnauthenticated, codes.PermissionDenied: ErrPermissionDenied,
		codes.NotFound: ErrNotFound, codes.FailedPrecondition: ErrFailedPrecondition,
		codes.AlreadyExists: ErrFailedPrecondition, codes.Aborted: ErrFailedPrecondition,
		codes.ResourceExhausted: ErrResourceExhausted, codes.Internal: ErrInternal,
		codes.Unknown: ErrInternal, codes.DataLoss: ErrInternal, codes.Unimplemented: ErrInternal,
	} {
		sidecar.Fail("CheckAndConsume", status.Error(code, "no"))
		if _, err := client.CheckAndConsume(within(t), request); !errors.Is(err, kind) {
			t.Errorf("%s was %v", code, err)
		}
	}
}

// What a string of another encoding holds is the caller's fault, and is told without asking.
func TestTextThatIsNoUTF8(t *testing.T) {
	client := open(t, fake.Start(t, 10))
	request := CheckAndConsumeRequest{Tenant: "\xff", Items: one(1)}
	if _, err := client.CheckAndConsume(within(t), request); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("was %v", err)
	}
}

// A call that its own caller cancels is granted by no policy.
func TestCancelled(t *testing.T) {
	client := open(t, fake.Start(t, 10), WithOnAbsent(Open))
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	request := CheckAndConsumeRequest{Tenant: "acme", Items: one(1)}
	_, err := client.CheckAndConsume(ctx, request)
	if !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("was %v", err)
	}
	if stats := client.Stats(); len(stats.LocalOpen) != 0 {
		t.Errorf("was %+v", stats)
	}
}

// The local policy decides in place of a sidecar that does not answer, and is counted and told.
func TestLocalPolicy(t *testing.T) {
	sidecar := fake.Start(t, 10)
	request := CheckAndConsumeRequest{Tenant: "acme", Items: one(1)}
	var told []string
	hooks := Hooks{Local: func(method string, policy Policy) {
		told = append(told, method+" "+string(policy))
	}}
	sidecar.Fail("CheckAndConsume", fake.Away(), fake.Away())
	closed := open(t, sidecar, WithHooks(hooks))
	if _, err := closed.CheckAndConsume(within(t), request); !errors.Is(err, ErrUnavailable) {
		t.Errorf("was %v", err)
	}
	opened := open(t, sidecar, WithHooks(hooks), WithOnAbsent(Open))
	decision := must(opened.CheckAndConsume(within(t), request))(t)
	if !decision.Allowed || !decision.Local || decision.OperationID == "" {
		t.Errorf("was %+v", decision)
	}
	if opened.Stats().LocalOpen["CheckAndConsume"] != 1 || len(told) != 2 ||
		told[0] != "CheckAndConsume closed" || told[1] != "CheckAndConsume open" {
		t.Errorf("was %v", told)
	}
}

// A hook that panics breaks no call.
func TestHookThatPanics(t *testing.T) {
	hooks := Hooks{Call: func(string, codes.Code, time.Duration) { panic("no") }}
	client := open(t, fake.Start(t, 10), WithHooks(hooks))
	request := CheckAndConsumeRequest{Tenant: "acme", Items: one(1)}
	must(client.CheckAndConsume(within(t), request))(t)
}

// Options that cannot be meant are refused by name.
func TestBadOptions(t *testing.T) {
	for field, option := range map[string]Option{
		"target": WithTarget("nowhere"), "timeout": WithTimeout(-1), "on_absent": WithOnAbsent("so"),
		"buffer.batch_max": WithBuffer(BufferOptions{BatchMax: 2000}),
	} {
		_, err := New(option)
		var failure *Error
		if !errors.As(err, &failure) || failure.Field != field {
			t.Errorf("%s: was %v", field, err)
		}
	}
	if _, err := LoadTLS("nowhere.pem", "", "", ""); err == nil {
		t.Error("a missing file was no fault")
	}
}

// A client that was closed says so, and nothing of it goes on.
func TestClose(t *testing.T) {
	sidecar := fake.Start(t, 100)
	client := open(t, sidecar, WithBuffer(BufferOptions{SpoolDir: t.TempDir()}))
	held := must(client.Reserve(within(t), ReserveRequest{Tenant: "acme", Items: one(1)}))(t)
	held.KeepAlive()
	must(client.Buffer().Record(use(3)))(t)
	ran := false
	client.Background(func() { ran = true })
	if err := client.Close(within(t)); err != nil {
		t.Error(err)
	}
	if len(sidecar.Events()) != 1 || !ran {
		t.Error("it closed before all was done")
	}
	if _, err := client.Check(within(t), CheckRequest{}); !errors.Is(err, ErrClosed) {
		t.Errorf("was %v", err)
	}
	if _, err := client.Buffer().Record(use(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("was %v", err)
	}
	if left := ours(); left != 0 {
		t.Errorf("%d goroutines are left", left)
	}
}
