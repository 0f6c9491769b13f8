package metering

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tallygate/tallygate/clients/go"
)

const (
	fieldsMax = 10
	// Structured fields know integers of 15 digits.
	integerMax = 999_999_999_999_999
)

// Fields say how limits are told to callers, by the draft for RateLimit header fields.
type Fields struct {
	// QuotaUnits name, by meter, what is counted, as "content-bytes".
	QuotaUnits map[string]string
	// Windows are, by limit id, the windows' lengths.
	Windows map[string]time.Duration
}

// Of returns the values of RateLimit-Policy and RateLimit for a decision; both are empty where it
// has no limit to show.
func (f Fields) Of(decision tallygate.Decision, now time.Time) (policy, limit string) {
	var policies, limits []string
	for _, each := range shown(decision) {
		name := quoted(each.LimitID)
		key := ""
		if each.Scope != "" {
			key = ";pk=:" + base64.StdEncoding.EncodeToString([]byte(each.Scope)) + ":"
		}
		one := fmt.Sprintf("%s;q=%d", name, min(each.Limit, integerMax))
		if unit := f.QuotaUnits[each.Meter]; unit != "" {
			one += ";qu=" + quoted(unit)
		}
		if window := f.Windows[each.LimitID]; window > 0 {
			one += fmt.Sprintf(";w=%d", seconds(window))
		}
		policies = append(policies, one+key)
		one = fmt.Sprintf("%s;r=%d", name, min(each.Remaining, integerMax))
		switch {
		case each.LimitID == decision.RefusedBy && decision.RetryAfter > 0:
			one += fmt.Sprintf(";t=%d", RetrySeconds(decision.RetryAfter))
		case !each.ResetsAt.IsZero():
			one += fmt.Sprintf(";t=%d", max(seconds(each.ResetsAt.Sub(now)), 0))
		}
		limits = append(limits, one+key)
	}
	return strings.Join(policies, ", "), strings.Join(limits, ", ")
}

// RetrySeconds returns a wait as Retry-After has it: whole seconds, rounded up, at least 1.
func RetrySeconds(wait time.Duration) int64 { return max(seconds(wait), 1) }

func seconds(wait time.Duration) int64 {
	return int64((wait + time.Second - 1) / time.Second)
}

// shown returns the limits to tell of: the one that refused first, and of several alike the one
// with the least left.
func shown(decision tallygate.Decision) []tallygate.LimitStatus {
	var out []tallygate.LimitStatus
	for _, each := range decision.Limits {
		if each.Unlimited || each.State == tallygate.StateShadowExceeded {
			continue
		}
		same := slices.IndexFunc(out, func(other tallygate.LimitStatus) bool {
			return other.LimitID == each.LimitID && other.Scope == each.Scope
		})
		switch {
		case same < 0:
			out = append(out, each)
		case each.Remaining < out[same].Remaining:
			out[same] = each
		}
	}
	slices.SortStableFunc(out, func(a, b tallygate.LimitStatus) int {
		return rank(a, decision) - rank(b, decision)
	})
	return out[:min(len(out), fieldsMax)]
}

func rank(limit tallygate.LimitStatus, decision tallygate.Decision) int {
	if limit.LimitID == decision.RefusedBy {
		return 0
	}
	return 1
}

// quoted returns a string of a structured field.
func quoted(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, letter := range text {
		switch {
		case letter == '"' || letter == '\\':
			out.WriteByte('\\')
			out.WriteRune(letter)
		case letter < ' ' || letter > '~':
			out.WriteByte('?')
		default:
			out.WriteRune(letter)
		}
	}
	out.WriteByte('"')
	return out.String()
}
