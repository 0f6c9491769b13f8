-- Give back the lanes of a lease, each due with the first of its sends, or not at all; those named
-- are left alone until an instant.
update tallygate.stripe_lane as lane
set
    lease_token = null,
    leased_until = null,
    quiet_until = coalesce(
        (
            select tallygate.instant(quiet.until_us)
            from unnest($2::text[], $3::text[], $4::bigint[]) as quiet (customer, meter, until_us)
            where quiet.customer = lane.customer and quiet.meter = lane.meter
        ),
        lane.quiet_until
    ),
    due_at = coalesce(
        (
            select min(send.due_at)
            from tallygate.stripe_send as send
            where
                send.destination = lane.destination
                and send.customer = lane.customer
                and send.meter = lane.meter
                and send.state in ('pending', 'sending', 'ambiguous')
        ),
        'infinity'
    )
where lane.lease_token = $1::uuid
