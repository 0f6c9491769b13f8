// Package tallygate asks a Tallygate sidecar before costly work is done, and tells it after.
//
//	client, err := tallygate.New(tallygate.WithTarget("unix:///run/tallygate/tallygate.sock"))
//	if err != nil {
//		return err
//	}
//	defer client.Close(context.Background())
//
//	decision, err := client.CheckAndConsume(ctx, tallygate.CheckAndConsumeRequest{
//		Tenant: "acme",
//		Items:  []tallygate.Item{{Meter: "requests", Amount: 1}},
//	})
//
// A refusal is a value and no error: look at [Decision.Allowed]. Work whose cost is known only
// after it is done runs within [Client.Do], which reserves before it and commits or releases when
// it ends. What happened already is told by [Client.Record], or without waiting by the [Buffer].
//
// Every call has a deadline (one second unless set), keeps one operation id over all its retries,
// and is retried only where the sidecar did not answer (UNAVAILABLE), within a retry budget. Errors
// are of type [*Error]; [errors.Is] tells their kinds apart:
//
//	var failure *tallygate.Error
//	switch {
//	case errors.Is(err, tallygate.ErrUnavailable):
//	case errors.As(err, &failure):
//		log.Print(failure.Reason, failure.Field, failure.OperationID)
//	}
//
// A Client is safe for use by several goroutines at once. Make one and keep it.
package tallygate
