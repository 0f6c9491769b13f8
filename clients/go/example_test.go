package tallygate_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tallygate/tallygate/clients/go"
)

// Ask before costly work. The sidecar is at TALLYGATE_TARGET, or where WithTarget says.
func Example() {
	ctx := context.Background()
	client, err := tallygate.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close(ctx)

	decision, err := client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
		Tenant: "acme",
		Items:  []tallygate.Item{{Meter: "requests", Amount: 1}},
	})
	switch {
	case err != nil:
		fmt.Println(err)
	case !decision.Allowed:
		fmt.Println("come back in", decision.RetryAfter)
	default:
		fmt.Println("go ahead")
	}
	// Output: go ahead
}

// Hold what an answer may cost at most, and pay for the tokens that it has come to.
func ExampleClient_Do() {
	ctx := context.Background()
	client, err := tallygate.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close(ctx)

	settled, err := client.Do(ctx, tallygate.ReserveRequest{
		Tenant: "acme",
		Items:  []tallygate.Item{{Meter: "tokens", Amount: 400}},
		TTL:    time.Minute, // kept alive for as long as the work goes on
	}, func(_ context.Context, held *tallygate.Reservation) error {
		var tokens int64
		for range []string{"Tally", "gate", "!"} { // as a model streams them
			tokens++
		}
		held.SetActual(tokens)
		return nil // an error gives all of it back
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(settled.Outcome)
	// Output: COMMITTED
}

// Tell of usage without waiting, through outages and restarts of this process.
func ExampleBuffer() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := tallygate.New(tallygate.WithBuffer(tallygate.BufferOptions{
		SpoolDir: "", // a folder: what waits survives the process
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	event := tallygate.Event{Tenant: "acme", Meter: "egress_bytes", Amount: 1200}
	if _, err := client.Buffer().Record(event); err != nil {
		fmt.Println(err) // ErrBufferFull: it was not accepted
	}
	if err := client.Close(ctx); err != nil {
		fmt.Println(err) // what is left
	}
	fmt.Println(client.Stats().Sent, "sent")
	// Output: 1 sent
}

// An error says what kind it is, and under which id the same call may be made again.
func ExampleError() {
	ctx := context.Background()
	client, err := tallygate.New(tallygate.WithTarget("unix:/nowhere/tallygate.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close(ctx)

	_, err = client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
		Tenant:      "acme",
		Items:       []tallygate.Item{{Meter: "requests", Amount: 1}},
		OperationID: "order-17",
	})
	var failure *tallygate.Error
	if errors.Is(err, tallygate.ErrUnavailable) && errors.As(err, &failure) {
		fmt.Println("nobody has answered", failure.OperationID)
	}
	// Output: nobody has answered order-17
}
