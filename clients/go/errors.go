package tallygate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// What went wrong, by what a caller can do about it. Each [*Error] is one of them for [errors.Is].
var (
	// ErrInvalidRequest says that the request cannot be served as it is; Field names the fault.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrUnavailable says that no answer came. The same call, with the same operation id, may be
	// made again: it is charged once.
	ErrUnavailable = errors.New("unavailable")
	// ErrDeadlineExceeded says that no answer came in time. The call may have been charged: made
	// again with the same operation id, it answers as it did.
	ErrDeadlineExceeded = errors.New("deadline exceeded")
	// ErrCancelled says that the caller's own context was cancelled.
	ErrCancelled = errors.New("cancelled")
	// ErrUnauthenticated says that the caller has not proven who it is.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied says that the caller may not do this.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrNotFound says that what was asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrFailedPrecondition says that the state of things forbids the call.
	ErrFailedPrecondition = errors.New("failed precondition")
	// ErrResourceExhausted says that the service has no room for the call. No quota is meant.
	ErrResourceExhausted = errors.New("resource exhausted")
	// ErrInternal says that something unexpected went wrong on the way or in the service.
	ErrInternal = errors.New("internal")
	// ErrQuotaExceeded is what a [*QuotaExceededError] is.
	ErrQuotaExceeded = errors.New("quota exceeded")
	// ErrBufferFull says that the buffer or its spool has no room: the event was not accepted.
	ErrBufferFull = errors.New("buffer full")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("client closed")
	// ErrSpoolLocked says that another client, of this process or another, holds the spool.
	ErrSpoolLocked = errors.New("spool locked")
	// ErrUnsent is what an [*UnsentError] is.
	ErrUnsent = errors.New("events not sent")
)

// Error is why a call was not served.
type Error struct {
	// Code is the status with which the call ended.
	Code codes.Code
	// Reason is the service's name for it, as "UNKNOWN_METER"; empty where it gave none.
	Reason string
	// Message is for people.
	Message string
	// Field is the path of the field at fault, as "items[0].meter"; empty where no field is.
	Field string
	// RetryAfter is when the service asks to be tried again; 0 where it did not say.
	RetryAfter time.Duration
	// OperationID named the call. Made again with it, a call that was charged is not charged twice.
	OperationID string

	kind error
}

// Error returns kind, reason, field and message in one line.
func (e *Error) Error() string {
	var out strings.Builder
	out.WriteString("tallygate: ")
	out.WriteString(e.kind.Error())
	if e.Reason != "" {
		fmt.Fprintf(&out, " (%s)", e.Reason)
	}
	if e.Field != "" {
		fmt.Fprintf(&out, ": %s", e.Field)
	}
	if e.Message != "" {
		fmt.Fprintf(&out, ": %s", e.Message)
	}
	return out.String()
}

// Is tells whether target is this error's kind, as [ErrUnavailable].
func (e *Error) Is(target error) bool { return target == e.kind }

// Unwrap returns [context.Canceled] or [context.DeadlineExceeded] where that is what happened.
func (e *Error) Unwrap() error {
	switch e.kind {
	case ErrCancelled:
		return context.Canceled
	case ErrDeadlineExceeded:
		return context.DeadlineExceeded
	}
	return nil
}

// GRPCStatus returns the error as a status, for [status.FromError].
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// QuotaExceededError is how the helpers say that work was refused. Plain calls return the refusal
// as a value.
type QuotaExceededError struct {
	// Decision is the refusal.
	Decision Decision
}

// Error names the limit that refused.
func (e *QuotaExceededError) Error() string {
	return fmt.Sprintf("tallygate: quota exceeded: refused by %s", e.Decision.RefusedBy)
}

// Is tells whether target is [ErrQuotaExceeded].
func (e *QuotaExceededError) Is(target error) bool { return target == ErrQuotaExceeded }

// UnsentError is how [Buffer.Flush] and [Client.Close] say that events are left in the buffer.
type UnsentError struct {
	// Pending is how many are left.
	Pending int
	// Spooled tells whether they are on disk, for the next client with the same spool to send.
	Spooled bool
}

// Error says how many events are left, and where.
func (e *UnsentError) Error() string {
	where := "memory alone"
	if e.Spooled {
		where = "the spool"
	}
	return fmt.Sprintf("tallygate: %d events were not sent, and are in %s", e.Pending, where)
}

// Is tells whether target is [ErrUnsent].
func (e *UnsentError) Is(target error) bool { return target == ErrUnsent }

// errorOf returns what the status of a call that failed means. asked tells whether the caller
// itself cancelled.
func errorOf(err error, operationID string, asked bool) *Error {
	state := status.Convert(err)
	failure := &Error{
		Code:        state.Code(),
		Message:     state.Message(),
		OperationID: operationID,
		kind:        kindOf(state.Code(), asked),
	}
	for _, detail := range state.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "tallygate" {
				failure.Reason = detail.GetReason()
			}
		case *errdetails.BadRequest:
			if faults := detail.GetFieldViolations(); len(faults) > 0 && failure.Field == "" {
				failure.Field = faults[0].GetField()
			}
		case *errdetails.RetryInfo:
			failure.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return failure
}

// itemError returns why one item of a list was not served.
func itemError(item *tallygatepb.ItemError, operationID string) *Error {
	code := codes.Code(item.GetCode()) //nolint:gosec // a google.rpc.Code
	return &Error{
		Code:        code,
		Reason:      strings.TrimPrefix(item.GetReason().String(), "REASON_"),
		Message:     item.GetMessage(),
		Field:       item.GetField(),
		RetryAfter:  item.GetRetryAfter().AsDuration(),
		OperationID: operationID,
		kind:        kindOf(code, false),
	}
}

func invalid(field, message, operationID string) *Error {
	return &Error{
		Code: codes.InvalidArgument, Reason: "INVALID_FIELD", Message: message, Field: field,
		OperationID: operationID, kind: ErrInvalidRequest,
	}
}

func kindOf(code codes.Code, asked bool) error {
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return ErrInvalidRequest
	case codes.Canceled:
		if asked {
			return ErrCancelled
		}
		return ErrUnavailable // A service that stops ends its calls so.
	case codes.Unavailable:
		return ErrUnavailable
	case codes.DeadlineExceeded:
		return ErrDeadlineExceeded
	case codes.Unauthenticated:
		return ErrUnauthenticated
	case codes.PermissionDenied:
		return ErrPermissionDenied
	case codes.NotFound:
		return ErrNotFound
	case codes.FailedPrecondition, codes.AlreadyExists, codes.Aborted:
		return ErrFailedPrecondition
	case codes.ResourceExhausted:
		return ErrResourceExhausted
	default:
		return ErrInternal
	}
}
