package nethttp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/metering"
)

// Problem is why a request is not served, as a problem document (RFC 9457).
type Problem struct {
	Type        string   `json:"type"`
	Title       string   `json:"title"`
	Status      int      `json:"status"`
	Detail      string   `json:"detail"`
	OperationID string   `json:"operation_id,omitempty"`
	Violated    []string `json:"violated-policies,omitempty"`

	// RetryAfter is 0 where the header is absent.
	RetryAfter time.Duration `json:"-"`
	challenge  string
}

const (
	typeExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	typePrefix   = "urn:tallygate:problem:"
)

func tenantMissing(challenge string) Problem {
	status := http.StatusBadRequest
	if challenge != "" {
		status = http.StatusUnauthorized
	}
	return Problem{
		Type: typePrefix + "tenant-missing", Title: "Tenant missing", Status: status,
		Detail: "The request does not say who pays for it.", challenge: challenge,
	}
}

// unserved answers a request for which there is no charge.
func (m *metered) unserved(w http.ResponseWriter, r *http.Request, err error) {
	var refused *tallygate.QuotaExceededError
	if errors.As(err, &refused) {
		decision := refused.Decision
		m.refuse(w, r, Problem{
			Type: typeExceeded, Title: "Quota exceeded", Status: http.StatusTooManyRequests,
			Detail:      fmt.Sprintf("The limit %q is used up.", decision.RefusedBy),
			OperationID: decision.OperationID, Violated: []string{decision.RefusedBy},
			RetryAfter: decision.RetryAfter,
		}, decision)
		return
	}
	if r.Context().Err() != nil {
		return // The client has left: nobody reads an answer.
	}
	m.options.Failed(r.Context(), err)
	m.refuse(w, r, problemOf(err), tallygate.Decision{})
}

func problemOf(err error) Problem {
	var failure *tallygate.Error
	if !errors.As(err, &failure) {
		failure = &tallygate.Error{Code: codes.Unknown}
	}
	absent := errors.Is(err, tallygate.ErrUnavailable) ||
		errors.Is(err, tallygate.ErrDeadlineExceeded) ||
		errors.Is(err, tallygate.ErrResourceExhausted) || errors.Is(err, tallygate.ErrClosed)
	switch {
	case absent:
		return Problem{
			Type: typePrefix + "metering-unavailable", Title: "Metering unavailable",
			Status: http.StatusServiceUnavailable, OperationID: failure.OperationID,
			Detail:     "Whether the request may be served cannot be decided now.",
			RetryAfter: max(failure.RetryAfter, time.Second),
		}
	case errors.Is(err, tallygate.ErrInvalidRequest) && failure.Field == "tenant_id":
		return Problem{
			Type: typePrefix + "tenant-invalid", Title: "Tenant invalid",
			Status: http.StatusBadRequest, OperationID: failure.OperationID,
			Detail: "What the request says of who pays is no tenant's id.",
		}
	case failure.Reason == "UNKNOWN_TENANT" || failure.Reason == "TENANT_SUSPENDED":
		return Problem{
			Type: typePrefix + "tenant-refused", Title: "Tenant refused",
			Status: http.StatusForbidden, OperationID: failure.OperationID,
			Detail: "Who pays for the request is not served.",
		}
	}
	return Problem{
		Type: typePrefix + "metering-failed", Title: "Metering failed",
		Status: http.StatusInternalServerError, OperationID: failure.OperationID,
		Detail: "The request could not be metered.",
	}
}

func (m *metered) refuse(
	w http.ResponseWriter, r *http.Request, problem Problem, decision tallygate.Decision,
) {
	header := w.Header()
	m.tell(header, decision)
	header.Set("Cache-Control", "no-store")
	if problem.RetryAfter > 0 {
		seconds := metering.RetrySeconds(problem.RetryAfter)
		header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if problem.challenge != "" {
		header.Set("WWW-Authenticate", problem.challenge)
	}
	if m.options.Answer != nil {
		m.options.Answer(w, r, problem)
		return
	}
	header.Set("Content-Type", "application/problem+json")
	w.WriteHeader(problem.Status)
	_ = json.NewEncoder(w).Encode(problem) // The client has left, or reads it.
}
