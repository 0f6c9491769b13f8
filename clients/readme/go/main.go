// The program is what the README of the Go client shows, beside a sidecar.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	tallygate "github.com/tallygate/tallygate/clients/go"
	"google.golang.org/grpc/codes"
)

func main() {
	ctx := context.Background()
	for _, run := range []func(context.Context) error{
		firstCall, reserve, buffer, policy, failures, hooks,
	} {
		if err := run(ctx); err != nil {
			log.Fatal(err)
		}
	}
}

func firstCall(ctx context.Context) error {
	// [first-call]
	client, err := tallygate.New() // at TALLYGATE_TARGET, else at 127.0.0.1:50051
	if err != nil {
		return err
	}
	defer client.Close(ctx)

	decision, err := client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
		Tenant: "acme",
		Items:  []tallygate.Item{{Meter: "requests", Amount: 1}},
	})
	if err != nil {
		return err
	}
	if decision.Allowed {
		fmt.Printf("go ahead, %d left\n", decision.Limits[0].Remaining)
	} else {
		fmt.Printf("come back in %s: %s\n", decision.RetryAfter, decision.RefusedBy)
	}
	// [/first-call]
	return nil
}

func reserve(ctx context.Context) error {
	client, err := tallygate.New()
	if err != nil {
		return err
	}
	defer client.Close(ctx)
	// [reserve]
	_, err = client.Do(ctx, tallygate.ReserveRequest{
		Tenant: "acme",
		Items:  []tallygate.Item{{Meter: "egress_bytes", Amount: 50_000}},
	}, func(ctx context.Context, held *tallygate.Reservation) error {
		sent := len("the response")
		held.SetActual(int64(sent))
		fmt.Printf("sent %d bytes\n", sent)
		return nil // an error gives all of it back
	})
	// [/reserve]
	return err
}

func buffer(ctx context.Context) error {
	// [buffer]
	client, err := tallygate.New(tallygate.WithBuffer(tallygate.BufferOptions{SpoolDir: "spool"}))
	if err != nil {
		return err
	}
	event := tallygate.Event{Tenant: "acme", Meter: "egress_bytes", Amount: 1_200}
	if _, err := client.Buffer().Record(event); err != nil { // returns at once
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil {
		return err // what could not be sent is in the spool, for the next start
	}
	// [/buffer]
	fmt.Println("delivered")
	return nil
}

func policy(ctx context.Context) error {
	// [policy]
	client, err := tallygate.New(tallygate.WithOnAbsent(tallygate.Open))
	if err != nil {
		return err
	}
	decision, err := client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
		Tenant: "acme",
		Items:  []tallygate.Item{{Meter: "requests", Amount: 1}},
	})
	if err != nil {
		return err
	}
	if decision.Local {
		fmt.Println("no sidecar: let pass, and counted as LocalOpen")
	}
	// [/policy]
	fmt.Println("counted", client.Stats().LocalOpen["CheckAndConsume"])
	return client.Close(ctx)
}

func failures(ctx context.Context) error {
	client, err := tallygate.New()
	if err != nil {
		return err
	}
	defer client.Close(ctx)
	// [errors]
	_, err = client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
		Tenant: "acme",
		Items:  []tallygate.Item{{Meter: "requests", Amount: 0}},
	})
	var failure *tallygate.Error
	switch {
	case errors.Is(err, tallygate.ErrUnavailable) && errors.As(err, &failure):
		fmt.Println("nobody answered; ask again as", failure.OperationID)
	case errors.As(err, &failure):
		fmt.Printf("%s: %s\n", failure.Reason, failure.Field)
	}
	// [/errors]
	return nil
}

func hooks(ctx context.Context) error {
	// [hooks]
	client, err := tallygate.New(tallygate.WithHooks(tallygate.Hooks{
		Call: func(method string, code codes.Code, elapsed time.Duration) {
			fmt.Printf("%s: %s\n", method, code)
		},
	}))
	if err != nil {
		return err
	}
	_, err = client.Quota(ctx, tallygate.QuotaRequest{Tenant: "acme"})
	// [/hooks]
	if err != nil {
		return err
	}
	return client.Close(ctx)
}

// Secured connects with TLS, where a target has it.
func Secured() (*tallygate.Client, error) {
	// [tls]
	config, err := tallygate.LoadTLS("ca.pem", "app.pem", "app.key", "")
	if err != nil {
		return nil, err
	}
	client, err := tallygate.New(
		tallygate.WithTarget("sidecar.internal:50051"), tallygate.WithTLS(config),
	)
	// [/tls]
	return client, err
}
