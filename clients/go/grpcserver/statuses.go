package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tallygate/tallygate/clients/go"
)

// The trailers that say where the caller stands; the draft keeps its own names out of trailers.
const (
	limitTrailer  = "tallygate-ratelimit"
	policyTrailer = "tallygate-ratelimit-policy"
)

func (m *Meter) tenantMissing() error {
	code := codes.InvalidArgument
	if m.options.Unauthenticated {
		code = codes.Unauthenticated
	}
	return status.Error(code, "the call does not say who pays for it")
}

func (m *Meter) trail(decision tallygate.Decision, trail func(metadata.MD)) {
	policy, limit := m.options.Fields.Of(decision, time.Now())
	if limit != "" {
		trail(metadata.Pairs(policyTrailer, policy, limitTrailer, limit))
	}
}

// unserved returns the status of a call for which there is no charge.
func (m *Meter) unserved(ctx context.Context, err error, trail func(metadata.MD)) error {
	var refused *tallygate.QuotaExceededError
	if errors.As(err, &refused) {
		m.trail(refused.Decision, trail)
		return exceeded(refused.Decision)
	}
	if errors.Is(err, tallygate.ErrCancelled) || ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	m.options.Failed(ctx, err)
	var failure *tallygate.Error
	if !errors.As(err, &failure) {
		failure = &tallygate.Error{}
	}
	switch {
	case errors.Is(err, tallygate.ErrUnavailable), errors.Is(err, tallygate.ErrDeadlineExceeded),
		errors.Is(err, tallygate.ErrResourceExhausted), errors.Is(err, tallygate.ErrClosed):
		return detailed(codes.Unavailable, "metering is unavailable", &errdetails.RetryInfo{
			RetryDelay: durationpb.New(max(failure.RetryAfter, time.Second)),
		})
	case errors.Is(err, tallygate.ErrInvalidRequest) && failure.Field == "tenant_id":
		return status.Error(codes.InvalidArgument, "what the call says of who pays is no tenant's id")
	case failure.Reason == "UNKNOWN_TENANT", failure.Reason == "TENANT_SUSPENDED":
		return status.Error(codes.PermissionDenied, "who pays for the call is not served")
	}
	return status.Error(codes.Internal, "the call could not be metered")
}

// exceeded is the status of a refusal: every limit that refuses, and when to come back.
func exceeded(decision tallygate.Decision) error {
	quota := &errdetails.QuotaFailure{}
	for _, limit := range decision.Limits {
		if limit.State == tallygate.StateExceeded || limit.LimitID == decision.RefusedBy {
			quota.Violations = append(quota.Violations, &errdetails.QuotaFailure_Violation{
				Subject:     "limit:" + limit.LimitID,
				Description: fmt.Sprintf("the limit %q is used up", limit.LimitID),
			})
		}
	}
	details := []protoadapt.MessageV1{
		quota, &errdetails.ErrorInfo{Reason: "QUOTA_EXCEEDED", Domain: "tallygate"},
	}
	if decision.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{
			RetryDelay: durationpb.New(decision.RetryAfter),
		})
	}
	message := fmt.Sprintf("the limit %q is used up", decision.RefusedBy)
	return detailed(codes.ResourceExhausted, message, details...)
}

func detailed(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	plain := status.New(code, message)
	told, err := plain.WithDetails(details...)
	if err != nil {
		return plain.Err()
	}
	return told.Err()
}
